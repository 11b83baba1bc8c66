// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stream writes events as go test -json does, from words like "fail m/a TestX: what it said".
func stream(t *testing.T, words ...string) tests {
	t.Helper()
	var lines strings.Builder
	for _, w := range words {
		head, said, _ := strings.Cut(w, ": ")
		f := append(strings.Fields(head), "")
		if said != "" {
			fmt.Fprintf(&lines, "{\"Action\":\"output\",\"Package\":%q,\"Test\":%q,\"Output\":%q}\n", f[1], f[2], said+"\n")
		}
		place := "Package"
		if f[0] == "build-fail" {
			place = "ImportPath"
		}
		fmt.Fprintf(&lines, "{\"Action\":%q,%q:%q,\"Test\":%q}\n", f[0], place, f[1], f[2])
	}
	found, err := readTests(strings.NewReader(lines.String()), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second []string
		again         string // package pattern, …
		flaky, failed string
	}{
		{
			name:  "all well",
			first: []string{"pass m/a TestGood", "pass m/a"},
		},
		{
			name:   "passes alone",
			first:  []string{"pass m/a TestGood", "fail m/a TestBad: got 1", "fail m/a"},
			second: []string{"pass m/a TestBad", "pass m/a"},
			again:  "m/a ^TestBad$", flaky: "m/a TestBad",
		},
		{
			name:   "fails again",
			first:  []string{"fail m/a TestBad", "fail m/a"},
			second: []string{"fail m/a TestBad", "fail m/a"},
			again:  "m/a ^TestBad$", failed: "m/a TestBad, m/a",
		},
		{
			name:   "one of two passes",
			first:  []string{"fail m/a TestX", "fail m/a TestY", "fail m/a"},
			second: []string{"pass m/a TestX", "fail m/a TestY", "fail m/a"},
			again:  "m/a ^TestX$|^TestY$", flaky: "m/a TestX", failed: "m/a TestY, m/a",
		},
		{
			name:   "a subtest, not its siblings",
			first:  []string{"fail m/a TestX/a.b", "pass m/a TestX/c", "fail m/a TestX", "fail m/a"},
			second: []string{"pass m/a TestX/a.b", "pass m/a TestX", "pass m/a"},
			again:  `m/a ^TestX$/^a\.b$`, flaky: "m/a TestX/a.b",
		},
		{
			name:   "skipped the second time",
			first:  []string{"fail m/a TestX", "fail m/a"},
			second: []string{"skip m/a TestX", "pass m/a"},
			again:  "m/a ^TestX$", failed: "m/a TestX, m/a",
		},
		{
			name:  "did not run the second time",
			first: []string{"fail m/a TestX", "fail m/a"},
			again: "m/a ^TestX$", failed: "m/a TestX, m/a",
		},
		{
			name:   "the test passes, its package does not",
			first:  []string{"fail m/a TestX", "fail m/a"},
			second: []string{"pass m/a TestX", "fail m/a: goroutines are left"},
			again:  "m/a ^TestX$", failed: "m/a TestX, m/a",
		},
		{
			name:   "a data race",
			first:  []string{"fail m/a TestX: WARNING: DATA RACE", "fail m/a TestY", "fail m/a"},
			failed: "m/a TestX, m/a TestY, m/a",
		},
		{
			name:   "a timeout",
			first:  []string{"fail m/a TestX", "fail m/a: panic: test timed out after 20m0s"},
			failed: "m/a TestX, m/a",
		},
		{
			name:   "a package without a failed test",
			first:  []string{"pass m/a TestX", "fail m/a: exit status 1"},
			failed: "m/a",
		},
		{
			name:   "a build",
			first:  []string{"build-fail m/a", "fail m/a", "fail m/b TestX", "fail m/b"},
			second: []string{"pass m/b TestX", "pass m/b"},
			again:  "m/b ^TestX$", flaky: "m/b TestX", failed: "m/a",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := stream(t, c.first...), stream(t, c.second...)
			var again, flaky []string
			for _, a := range first.again() {
				again = append(again, a.pkg+" "+a.pattern())
			}
			wrong, failed := judge(first, second)
			for _, f := range wrong {
				flaky = append(flaky, f.name())
			}
			if got := strings.Join(again, ", "); got != c.again {
				t.Errorf("runs again %q, want %q", got, c.again)
			}
			if got := strings.Join(flaky, ", "); got != c.flaky {
				t.Errorf("flaky: %q, want %q", got, c.flaky)
			}
			if got := strings.Join(failed, ", "); got != c.failed {
				t.Errorf("failed: %q, want %q", got, c.failed)
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	f := failure{output: strings.Repeat("line\n", 100) + "last\n"}
	got := strings.Split(strings.TrimRight(f.excerpt(), "\n"), "\n")
	if len(got) != excerptLines+1 || got[0] != "    …" || got[excerptLines] != "    last" {
		t.Errorf("excerpt of %d lines: %q … %q", len(got), got[0], got[len(got)-1])
	}
}

// flakyTests fails once, and fails always.
const flakyTests = `package m

import (
	"os"
	"testing"
)

func TestFlaky(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		if os.Mkdir("seen", 0o755) == nil {
			t.Error("the first time")
		}
	})
	t.Run("never", func(t *testing.T) {})
}

func TestWrong(t *testing.T) {
	if _, err := os.Stat("right"); err != nil {
		t.Error(err)
	}
}
`

func TestGoTestRunsAgain(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\n", "m_test.go": flakyTests} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &report{}
	if err := goTest(t.Context(), r, dir, nil, "./..."); err == nil {
		t.Error("a wrong test is let pass")
	}
	if len(r.flaky) != 1 || r.flaky[0].name() != "m TestFlaky/once" || !strings.Contains(r.flaky[0].output, "the first time") {
		t.Errorf("flaky: %q", r.flaky)
	}
	if got := strings.Join(r.fails, ", "); got != "m TestWrong, m" {
		t.Errorf("failed: %s", got)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "seen")), os.Mkdir(filepath.Join(dir, "right"), 0o755)); err != nil {
		t.Fatal(err)
	}
	r = &report{}
	if err := goTest(t.Context(), r, dir, nil, "./..."); err != nil || len(r.flaky) != 1 || len(r.fails) != 0 {
		t.Errorf("flaky %q, failed %q: %v", r.flaky, r.fails, err)
	}
}
