// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isRefused says whether nobody listens there.
func isRefused(err error) bool {
	return errors.Is(err, windows.WSAECONNREFUSED) || errors.Is(err, windows.WSAECONNRESET)
}
