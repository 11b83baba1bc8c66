// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const events = `{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"=== RUN   TestSkip\n"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"    a_test.go:7: needs a real engine: only root can run it\n"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"    testscript.go:609: WORK=$WORK\n"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkip","Elapsed":0}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"noise\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood","Elapsed":0}
{"Action":"pass","Package":"m/a","Elapsed":0.25}
{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    b_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad","Elapsed":0}
{"Action":"fail","Package":"m/b","Elapsed":0.1}
{"ImportPath":"m/c","Action":"build-output","Output":"c.go:3:1: syntax error\n"}
{"ImportPath":"m/c","Action":"build-fail"}
{"Action":"fail","Package":"m/c","Elapsed":0,"FailedBuild":"m/c"}
`

func TestReadTests(t *testing.T) {
	var out strings.Builder
	found, err := readTests(strings.NewReader(events+"go: plain words\n"), &out)
	if err != nil {
		t.Fatal(err)
	}
	want := "ok    m/a 0.2s\n    b_test.go:9: got 1, want 2\nFAIL  m/b\nc.go:3:1: syntax error\nFAIL  m/c\ngo: plain words\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	if len(found.skips) != 1 || found.skips[0] != (skip{"m/a TestSkip", "needs a real engine: only root can run it"}) {
		t.Errorf("skips: %q", found.skips)
	}
	var names []string
	for _, f := range found.failed {
		names = append(names, f.name())
	}
	if got := strings.Join(names, ", "); got != "m/b TestBad, m/b, m/c, m/c" {
		t.Errorf("fails: %s", got)
	}
}

func TestSummary(t *testing.T) {
	r := &report{skips: []skip{{"a T1", "no root"}, {"a T2", "no root"}, {"a T1", "no root"}, {"b T3", "no net"}}}
	r.add("one", time.Second, nil)
	r.add("two", 0, skipped("not installed"))
	if r.failed() {
		t.Error("a skipped step counts as failed")
	}
	r.flaky = []failure{{"c", "T4", "    c_test.go:3: got 1\n"}}
	r.add("three", 1500*time.Millisecond, errors.New("exit status 1"))
	if !r.failed() {
		t.Error("a failed step does not count")
	}
	var out strings.Builder
	r.print(&out)
	want := `
=== Summary
passed        1s  one
skipped       0s  two: not installed
FAILED      1.5s  three

Skipped tests, by reason:
  no net
    b T3
  no root
    a T1
    a T2

Flaky tests (failed, then passed when run alone), with the end of what they said first:
  c T4
        c_test.go:3: got 1
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}

func TestOnlyDeadline(t *testing.T) {
	const flake = "fuzz: elapsed: 3s, execs: 31131 (0/sec), new interesting: 3 (total: 5)\n--- FAIL: FuzzX (3.03s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tm/a\t3.032s\n"
	for _, c := range []struct {
		name, said string
		want       bool
	}{
		{"the fuzzer's own", flake, true},
		{"a finding", flake + "    Failing input written to testdata/fuzz/FuzzX/1\n", false},
		{"a test's own deadline", "--- FAIL: FuzzX (0.1s)\n    x_test.go:9: context deadline exceeded\nFAIL\n", false},
		{"another failure", "FAIL\nexit status 1\n", false},
	} {
		if got := onlyDeadline(c.said); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
