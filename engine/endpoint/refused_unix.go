// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package endpoint

import (
	"errors"
	"syscall"
)

// isRefused says that a socket exists and nobody listens at it.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
