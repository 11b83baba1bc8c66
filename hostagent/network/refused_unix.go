// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package network

import (
	"errors"
	"syscall"
)

// isRefused says whether nobody listens there.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
