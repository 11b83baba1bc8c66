// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// testTimeout bounds one package's tests.
const testTimeout = 40 * time.Minute

// goTest runs go test in a folder, with flags, for packages. One line per package is printed, and the output of what failed. Tests that failed
// are run once more, alone: what passes then is reported as flaky, what fails again has failed.
func goTest(ctx context.Context, r *report, dir string, flags []string, packages ...string) error {
	first, err := runTests(ctx, dir, append(slices.Clone(flags), packages...)...)
	r.skips = append(r.skips, first.skips...)
	if err == nil {
		return nil
	}
	again := first.again()
	var second tests
	for _, a := range again {
		fmt.Printf("again %s %s, alone\n", a.pkg, a.pattern())
		t, _ := runTests(ctx, dir, append(slices.Clone(flags), "-count=1", "-p=1", "-parallel=1", "-run="+a.pattern(), a.pkg)...)
		second.merge(t)
	}
	flaky, failed := judge(first, second)
	r.flaky = append(r.flaky, flaky...)
	r.fails = append(r.fails, failed...)
	if len(again) > 0 && len(failed) == 0 && ctx.Err() == nil {
		return nil
	}
	return err
}

// runTests is one go test. Its error is nil only if nothing failed; what it saw until then is returned in any case.
func runTests(ctx context.Context, dir string, args ...string) (tests, error) {
	cmd := child(ctx, dir, append([]string{"go", "test", "-json", "-timeout", testTimeout.String()}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return tests{}, err
	}
	if err := cmd.Start(); err != nil {
		return tests{}, err
	}
	found, readErr := readTests(stdout, os.Stdout)
	if err := cmd.Wait(); err != nil {
		return found, fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	}
	return found, readErr
}

// testEvent is a line of `go test -json` (go doc test2json).
type testEvent struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// key names what an event is about; a build has no package yet.
func (e testEvent) key() string { return e.Package + e.ImportPath + " " + e.Test }

// readTests reads events to their end: lines for packages and the output of what failed go to w.
func readTests(events io.Reader, w io.Writer) (tests, error) {
	var found tests
	said := map[string][]string{} // output by test
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e testEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(w, lines.Text()) // the go command itself speaks plainly
			continue
		}
		switch e.Action {
		case "output", "build-output":
			said[e.key()] = append(said[e.key()], e.Output)
		case "pass", "skip", "fail", "build-fail":
			output := strings.Join(said[e.key()], "")
			show(e, output, w)
			found.add(e, output)
			delete(said, e.key())
		}
	}
	return found, lines.Err()
}

// show tells of a test or package that has ended.
func show(e testEvent, output string, w io.Writer) {
	switch {
	case e.Action == "build-fail":
		fmt.Fprint(w, output)
	case e.Action == "fail":
		fmt.Fprint(w, output)
		if e.Test == "" {
			fmt.Fprintf(w, "FAIL  %s\n", e.Package)
		}
	case e.Action == "pass" && e.Test == "":
		fmt.Fprintf(w, "ok    %s %.1fs\n", e.Package, e.Elapsed)
	}
}

var skipLine = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)$`)

// skipReason is the last thing a skipped test said; after it, testscript shows its environment.
func skipReason(output string) string {
	reason := "no reason given"
	for _, l := range strings.Split(output, "\n") {
		if m := skipLine.FindStringSubmatch(l); m != nil && !strings.HasPrefix(m[1], "WORK=") {
			reason = m[1]
		}
	}
	return reason
}

// reason is why tests were skipped, with their names.
type reason struct {
	text  string
	tests []string
}

// reasons groups skipped tests, in a stable order and each test once.
func reasons(skips []skip) []reason {
	var found []reason
	for _, s := range skips {
		i := slices.IndexFunc(found, func(r reason) bool { return r.text == s.reason })
		if i < 0 {
			i = len(found)
			found = append(found, reason{text: s.reason})
		}
		if !slices.Contains(found[i].tests, s.test) {
			found[i].tests = append(found[i].tests, s.test)
		}
	}
	slices.SortFunc(found, func(a, b reason) int { return strings.Compare(a.text, b.text) })
	return found
}

const (
	module     = "github.com/seed71221737/dev"
	enginetest = module + "/engine/enginetest"
)

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath                string
	TestImports, XTestImports []string
}

func listPackages(ctx context.Context) ([]goPackage, error) {
	out, err := output(ctx, "", "go", "list", "-json=ImportPath,TestImports,XTestImports", "./...")
	if err != nil {
		return nil, err
	}
	var found []goPackage
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
}

// needsEngine says whether a package's tests use a real engine.
func (p goPackage) needsEngine() bool {
	return slices.Contains(p.TestImports, enginetest) || slices.Contains(p.XTestImports, enginetest) || p.ImportPath == enginetest
}

// rootTests runs the tests with a real engine through sudo, where the first run could not because it was not root's.
func rootTests(ctx context.Context, r *report) error {
	if os.Geteuid() == 0 {
		return skipped("all tests have run as root already")
	}
	if _, err := output(ctx, "", "sudo", "-n", "true"); err != nil {
		return skipped("sudo asks for a password: run `sudo -v` before make test")
	}
	packages, err := listPackages(ctx)
	if err != nil {
		return err
	}
	var need []string
	for _, p := range packages {
		if p.needsEngine() {
			need = append(need, p.ImportPath)
		}
	}
	return goTest(ctx, r, "", []string{"-exec", "sudo -n -E"}, need...)
}

func nestedTests(ctx context.Context, r *report) error {
	return errors.Join(goTest(ctx, r, "engine/bundle", nil, "./..."), goTest(ctx, r, "examples/guestbook/web", nil, "./..."))
}

// fuzz runs each fuzz test for a short time beyond its stored cases. It goes on after a failure.
func fuzz(ctx context.Context, r *report, each time.Duration) error {
	packages, err := listPackages(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for _, p := range packages {
		if len(p.TestImports)+len(p.XTestImports) == 0 {
			continue
		}
		names, err := output(ctx, "", "go", "test", "-list", "^Fuzz", p.ImportPath)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(names) {
			if strings.HasPrefix(name, "Fuzz") {
				failures = append(failures, fuzzOne(ctx, r, p.ImportPath, name, each))
			}
		}
	}
	return errors.Join(failures...)
}

func fuzzOne(ctx context.Context, r *report, pkg, name string, each time.Duration) error {
	said, err := output(ctx, "", "go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", each.String(), pkg)
	switch {
	case err == nil:
		fmt.Printf("ok    %s %s\n", pkg, name)
		return nil
	case onlyDeadline(said):
		fmt.Printf("ok    %s %s (ended by its deadline)\n", pkg, name)
		return nil
	}
	fmt.Print(said)
	r.fails = append(r.fails, pkg+" "+name)
	return err
}

// onlyDeadline recognises a failure that is the fuzzer's own: on a busy machine the end of -fuzztime is reported as an error now and then
// (golang/go#75804, fixed in Go 1.27). A real finding names its input or its place.
func onlyDeadline(said string) bool {
	for _, l := range strings.Split(said, "\n") {
		l = strings.TrimSpace(l)
		known := l == "" || l == "context deadline exceeded" || l == "FAIL" || l == "exit status 1" ||
			strings.HasPrefix(l, "fuzz: elapsed: ") || strings.HasPrefix(l, "--- FAIL: Fuzz") || strings.HasPrefix(l, "FAIL\t") ||
			strings.HasPrefix(l, "=== RUN")
		if !known {
			return false
		}
	}
	return strings.Contains(said, "context deadline exceeded")
}
