// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package daemon

import (
	"errors"
	"syscall"
)

// isTaken, isForeign and isNoFamily say why an address could not be bound: somebody has it, the host does not have it, or the host does not know such.
func isTaken(err error) bool    { return errors.Is(err, syscall.EADDRINUSE) }
func isForeign(err error) bool  { return errors.Is(err, syscall.EADDRNOTAVAIL) }
func isNoFamily(err error) bool { return errors.Is(err, syscall.EAFNOSUPPORT) || isForeign(err) }
