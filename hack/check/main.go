// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command check proves the product: it runs every step of `make test` in order, goes on after a failure, and says at the end what passed, what
// failed, what was skipped and why, and which tests passed only when they were run again, alone. It exits with 0 only if nothing failed. Run it
// from the repository's root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// step is one part of the proof.
type step struct {
	name string
	run  func(ctx context.Context, r *report) error
}

func main() {
	fuzztime := flag.Duration("fuzztime", 5*time.Second, "how long each fuzz test runs")
	only := flag.String("only", "", "run only the steps whose names contain this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &report{}
	for _, s := range steps(*fuzztime) {
		if ctx.Err() != nil {
			break
		}
		if !strings.Contains(s.name, *only) {
			continue
		}
		fmt.Printf("\n=== %s\n", s.name)
		began := time.Now()
		err := s.run(ctx, r)
		r.add(s.name, time.Since(began), err)
	}
	r.print(os.Stdout)
	if r.failed() || ctx.Err() != nil {
		stop()
		os.Exit(1)
	}
}

func steps(fuzztime time.Duration) []step {
	return []step{
		{"format", checkFormat},
		{"vet", vet},
		{"lint", func(ctx context.Context, _ *report) error { return command(ctx, "", "make", "lint") }},
		{"shell scripts", shellcheck},
		{"engine", func(ctx context.Context, _ *report) error { return command(ctx, "", "make", "engine") }},
		{"build", func(ctx context.Context, _ *report) error { return command(ctx, "", "make", "build") }},
		{"tests, with the race detector", func(ctx context.Context, r *report) error { return goTest(ctx, r, "", []string{"-race"}, "./...") }},
		{"tests that need root", rootTests},
		{"nested modules", nestedTests},
		{"virtual machines", machines},
		{"demo in a virtual machine", machineDemo},
		{"fuzz", func(ctx context.Context, r *report) error { return fuzz(ctx, r, fuzztime) }},
		{"demo", demo},
	}
}

// skipped is a step's way to say that it did nothing, and why.
type skipped string

func (s skipped) Error() string { return string(s) }

// command runs a program in a folder, with its output on the screen.
func command(ctx context.Context, dir string, args ...string) error {
	cmd := child(ctx, dir, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// output runs a program and returns what it says; an error has its stderr.
func output(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := child(ctx, dir, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// child is a program to run. When ctx ends it is asked to stop, and killed a little later.
func child(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func checkFormat(ctx context.Context, _ *report) error {
	files, err := output(ctx, "", "git", "ls-files", "-co", "--exclude-standard", "--", "*.go")
	if err != nil {
		return err
	}
	args := []string{"gofmt", "-l"}
	for _, name := range strings.Fields(files) {
		if _, err := os.Stat(name); err == nil { // git lists deleted ones too
			args = append(args, name)
		}
	}
	wrong, err := output(ctx, "", args...)
	if err == nil && wrong != "" {
		err = fmt.Errorf("not formatted (make fmt): %s", strings.Join(strings.Fields(wrong), " "))
	}
	return err
}

func vet(ctx context.Context, _ *report) error {
	return errors.Join(
		command(ctx, "", "go", "vet", "./..."),
		command(ctx, "engine/bundle", "go", "vet", "./..."),
		command(ctx, "examples/guestbook/web", "go", "vet", "./..."),
	)
}

func shellcheck(ctx context.Context, _ *report) error {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		return skipped("shellcheck is not installed")
	}
	scripts, err := output(ctx, "", "git", "ls-files", "--", "*.sh", ".ci/run")
	if err != nil {
		return err
	}
	return command(ctx, "", append([]string{"shellcheck"}, strings.Fields(scripts)...)...)
}

func demo(ctx context.Context, _ *report) error {
	return command(ctx, "", "make", "demo-test")
}

// report collects what became of the steps.
type report struct {
	lines []line
	skips []skip
	flaky []failure
	fails []string
}

type line struct {
	name, result string
	took         time.Duration
	err          error
}

// skip is one test that was skipped.
type skip struct{ test, reason string }

func (r *report) add(name string, took time.Duration, err error) {
	l := line{name: name, result: "passed", took: took, err: err}
	var s skipped
	switch {
	case errors.As(err, &s):
		l.result = "skipped"
	case err != nil:
		l.result = "FAILED"
		fmt.Println(err)
	}
	r.lines = append(r.lines, l)
}

func (r *report) failed() bool {
	for _, l := range r.lines {
		if l.result == "FAILED" {
			return true
		}
	}
	return false
}

// print writes the summary: steps, skipped tests by reason, flaky tests with what they said, failed tests.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n=== Summary\n")
	for _, l := range r.lines {
		fmt.Fprintf(w, "%-8s %7s  %s", l.result, l.took.Round(100*time.Millisecond), l.name)
		if l.result == "skipped" {
			fmt.Fprintf(w, ": %v", l.err)
		}
		fmt.Fprintln(w)
	}
	if len(r.skips) > 0 {
		fmt.Fprintf(w, "\nSkipped tests, by reason:\n")
	}
	for _, reason := range reasons(r.skips) {
		fmt.Fprintf(w, "  %s\n", reason.text)
		for _, test := range reason.tests {
			fmt.Fprintf(w, "    %s\n", test)
		}
	}
	if len(r.flaky) > 0 {
		fmt.Fprintf(w, "\nFlaky tests (failed, then passed when run alone), with the end of what they said first:\n")
	}
	for _, f := range r.flaky {
		fmt.Fprintf(w, "  %s\n%s", f.name(), f.excerpt())
	}
	if len(r.fails) > 0 {
		fmt.Fprintf(w, "\nFailed tests:\n  %s\n", strings.Join(r.fails, "\n  "))
	}
}
