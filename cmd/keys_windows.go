// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"

	"golang.org/x/sys/windows"
)

// keyByKey makes a console hand keys over as they are typed, unseen. Ctrl-C stays a signal.
func keyByKey(f *os.File) (restore func(), err error) {
	h := windows.Handle(f.Fd())
	var before uint32
	if err := windows.GetConsoleMode(h, &before); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(h, before&^(windows.ENABLE_LINE_INPUT|windows.ENABLE_ECHO_INPUT)); err != nil {
		return nil, err
	}
	return func() { _ = windows.SetConsoleMode(h, before) }, nil
}
