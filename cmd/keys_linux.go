// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import "golang.org/x/sys/unix"

// The system's requests to read and set a terminal's settings.
const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)
