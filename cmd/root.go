// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package cmd is the command line of dev: the cobra tree, rendering, prompts and exit codes; one command per file.
//
// A command turns flags into options, calls the packages below and renders what they return; it holds no domain logic. This is the only package
// that prints, prompts, handles signals or ends the process. stdout is data, stderr is talk.
package cmd

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// app is what every command is given: where to read and write, and the global flags. Tests make one of their own.
type app struct {
	in       io.Reader
	out, err io.Writer
	// env is the process environment, passed explicitly from here on.
	env []string
	// cwd is the folder the user stands in.
	cwd string
	// host is the --host flag: the engine's address, empty to resolve it (package endpoint).
	host string
}

// Main runs the command line of this process and returns its exit code.
func Main() int {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "."
	}
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ(), cwd: cwd}
	ctx, stop := notifyContext(context.Background(), a.err)
	defer stop()
	return a.run(ctx, os.Args[1:])
}

// run executes one command line and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return a.exitCode(ctx, root.ExecuteContext(ctx))
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "dev",
		Short:         "Run multi-container applications on your workstation",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVarP(&a.host, "host", "H", "", "address of the engine to use (unix://, tcp://, ssh://)")
	root.AddCommand(newVersionCommand(a))
	return root
}
