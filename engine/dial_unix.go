// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package engine

import (
	"context"
	"errors"
	"net"
)

// dialLocal connects to a unix socket.
func dialLocal(ctx context.Context, scheme, path string) (net.Conn, error) {
	if scheme == "npipe" {
		return nil, errors.New("named pipes exist on Windows only")
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
}
