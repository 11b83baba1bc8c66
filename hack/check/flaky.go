// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"slices"
	"strings"
)

// excerptLines is how much of a flaky test's output the summary repeats; all of it stands where the test failed.
const excerptLines = 25

// tests is what one go test said of its tests.
type tests struct {
	passed []string // "package test"
	skips  []skip
	failed []failure // in the order in which they ended; a package comes after its tests
}

// failure is a test, a package (test is empty) or a build that failed.
type failure struct{ pkg, test, output string }

func (f failure) name() string { return strings.TrimSpace(f.pkg + " " + f.test) }

// excerpt is the end of what a test said, indented, as lines.
func (f failure) excerpt() string {
	lines := strings.Split(strings.TrimRight(f.output, "\n"), "\n")
	if n := len(lines) - excerptLines; n > 0 {
		lines = append([]string{"…"}, lines[n:]...)
	}
	return "    " + strings.Join(lines, "\n    ") + "\n"
}

// add notes a test or package that has ended.
func (t *tests) add(e testEvent, output string) {
	switch {
	case e.Action == "fail":
		t.failed = append(t.failed, failure{e.Package, e.Test, output})
	case e.Action == "build-fail":
		t.failed = append(t.failed, failure{e.ImportPath, "", output})
	case e.Action == "skip" && e.Test != "":
		t.skips = append(t.skips, skip{e.Package + " " + e.Test, skipReason(output)})
	case e.Action == "pass" && e.Test != "":
		t.passed = append(t.passed, e.Package+" "+e.Test)
	}
}

func (t *tests) merge(o tests) {
	t.passed, t.skips, t.failed = append(t.passed, o.passed...), append(t.skips, o.skips...), append(t.failed, o.failed...)
}

// rerun is what to run again of a package.
type rerun struct {
	pkg   string
	tests []string
}

// pattern is what -run takes for exactly these tests.
func (r rerun) pattern() string {
	var all []string
	for _, test := range r.tests {
		parts := strings.Split(test, "/")
		for i, part := range parts {
			parts[i] = "^" + regexp.QuoteMeta(part) + "$"
		}
		all = append(all, strings.Join(parts, "/"))
	}
	return strings.Join(all, "|")
}

// again says which tests deserve a second run: those that failed for a reason that other tests beside them, or a busy machine, may have caused.
func (t tests) again() []rerun {
	var found []rerun
	for _, f := range t.failed {
		if f.test == "" || t.inner(f) || t.broken(f.pkg) {
			continue
		}
		i := slices.IndexFunc(found, func(r rerun) bool { return r.pkg == f.pkg })
		if i < 0 {
			i = len(found)
			found = append(found, rerun{pkg: f.pkg})
		}
		if !slices.Contains(found[i].tests, f.test) {
			found[i].tests = append(found[i].tests, f.test)
		}
	}
	return found
}

// inner says whether a test failed because a subtest did.
func (t tests) inner(f failure) bool {
	return slices.ContainsFunc(t.failed, func(o failure) bool { return o.pkg == f.pkg && strings.HasPrefix(o.test, f.test+"/") })
}

// neverFlaky is what a second run must not hide: a data race is one even if it shows once in a hundred runs, and after a crash or a timeout the
// package's other tests have not run at all.
var neverFlaky = regexp.MustCompile(`(?m)^(WARNING: DATA RACE|panic: |fatal error: |\s*testing\.go:\d+: race detected)`)

// broken says whether a package failed in a way that running single tests again cannot mend: it did not build, it crashed, it has a data race, or
// it failed with no test to name.
func (t tests) broken(pkg string) bool {
	named := false
	for _, f := range t.failed {
		if f.pkg != pkg {
			continue
		}
		if neverFlaky.MatchString(f.output) {
			return true
		}
		named = named || f.test != ""
	}
	return !named
}

// judge decides what became of a first run's failures after the second run of what it was worth. Tests that have now passed are flaky; all else
// has failed, by name. A package counts as failed if a test in it does, or if it failed without one.
func judge(first, second tests) (flaky []failure, failed []string) {
	mended := func(f failure) bool {
		return !first.broken(f.pkg) && slices.Contains(second.passed, f.name()) && (second.well(f.pkg) || !second.broken(f.pkg))
	}
	for _, f := range first.failed {
		switch {
		case f.test != "" && mended(f):
			if !first.inner(f) {
				flaky = append(flaky, f)
			}
		case f.test == "" && !first.broken(f.pkg) && first.allTests(f.pkg, mended):
		case !slices.Contains(failed, f.name()): // a build that fails is told of twice
			failed = append(failed, f.name())
		}
	}
	return flaky, failed
}

// well says whether nothing of a package failed.
func (t tests) well(pkg string) bool {
	return !slices.ContainsFunc(t.failed, func(f failure) bool { return f.pkg == pkg })
}

// allTests says whether something holds for all failed tests of a package.
func (t tests) allTests(pkg string, holds func(failure) bool) bool {
	return !slices.ContainsFunc(t.failed, func(f failure) bool { return f.pkg == pkg && f.test != "" && !holds(f) })
}
