// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// replaceProcess runs a program and ends with its exit status. The console sends Ctrl-C to both; the program decides.
func replaceProcess(path string, args, env []string) error {
	c := &exec.Cmd{Path: path, Args: args, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitWith(exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", args[0], err)
	}
	return nil
}
