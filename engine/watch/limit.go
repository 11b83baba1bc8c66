// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// LimitError tells that the system allows no more watches. Hint says how to allow more.
type LimitError struct {
	Err error
	// Watched is how many folders were watched until then.
	Watched int

	setting string
	enough  int
}

// Error says how far it got.
func (e *LimitError) Error() string {
	if e.Watched == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v (after %d folders)", e.Err, e.Watched)
}

// Unwrap gives the system's error.
func (e *LimitError) Unwrap() error { return e.Err }

// Hint returns the command that raises the limit.
func (e *LimitError) Hint() string {
	if e.setting == "" {
		return "ignore folders that need no watching (ignore: in develop.watch, or .dockerignore), or raise the limit of open files: ulimit -n"
	}
	return fmt.Sprintf("sudo sysctl %s=%d (and in /etc/sysctl.d to keep it), or ignore folders that need no watching: ignore: in develop.watch, or .dockerignore", e.setting, e.enough)
}

// limited makes a [LimitError] of an error that tells of a limit, and leaves others.
func limited(err error, watched int) error {
	linux := runtime.GOOS == "linux"
	switch {
	case linux && errors.Is(err, syscall.ENOSPC):
		return &LimitError{Err: err, Watched: watched, setting: "fs.inotify.max_user_watches", enough: 1 << 20}
	case linux && errors.Is(err, syscall.EMFILE) && watched == 0:
		return &LimitError{Err: err, setting: "fs.inotify.max_user_instances", enough: 1024}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return &LimitError{Err: err, Watched: watched}
	}
	return err
}
