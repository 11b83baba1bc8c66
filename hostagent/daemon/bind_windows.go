// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isTaken, isForeign and isNoFamily say why an address could not be bound: somebody has it, the host does not have it, or the host does not know such.
func isTaken(err error) bool    { return errors.Is(err, windows.WSAEADDRINUSE) }
func isForeign(err error) bool  { return errors.Is(err, windows.WSAEADDRNOTAVAIL) }
func isNoFamily(err error) bool { return errors.Is(err, windows.WSAEAFNOSUPPORT) || isForeign(err) }
