// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isRefused says that a socket exists and nobody listens at it.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
