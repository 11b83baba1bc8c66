// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command bundle builds the Docker Engine that dev carries: dockerd,
// docker-proxy, containerd with its runc shim, and runc from Go modules pinned in
// this nested module's go.mod, and docker-init from init/. It writes to the output
// folder, for each architecture,
//
//	engine-linux-<arch>.tar.zst   manifest.json, bin/…, licenses/…
//	engine-linux-<arch>.json      the manifest, with the archive's own digest
//	engine-linux-<arch>.inputs    what it was made from: a run that finds the
//	                              same again does nothing
//
// The same inputs give the same bytes. The module is nested so that the engine's
// several hundred dependencies stay out of dev's own go.mod; nothing imports it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

const ownModule = "github.com/seed71221737/dev/engine/bundle"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "Error:", err)
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		fmt.Fprintln(os.Stderr, "Hint:", h.Hint())
	}
	stop()
	os.Exit(1)
}

func run(ctx context.Context, args []string, progress io.Writer) error {
	flags := flag.NewFlagSet("bundle", flag.ContinueOnError)
	flags.SetOutput(progress)
	arch := flags.String("arch", runtime.GOARCH, "architecture: amd64, arm64 or all")
	dir := flags.String("o", "dist", "output folder")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	archs := []string{*arch}
	if *arch == "all" {
		archs = []string{"amd64", "arm64"}
	}
	for _, a := range archs {
		t, err := newTarget(a, runtime.GOARCH)
		if err != nil {
			return err
		}
		if err := build(ctx, t, ".", *dir, progress); err != nil {
			return err
		}
	}
	return nil
}

// hintError is an error with the next command to type.
type hintError struct {
	error
	hint string
}

func hinted(err error, hint string) error { return hintError{err, hint} }

func (e hintError) Hint() string  { return e.hint }
func (e hintError) Unwrap() error { return e.error }
