// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// SystemHost is where a Docker Engine of the system listens.
const SystemHost = "unix:///var/run/docker.sock"

// dialLocal connects to a unix socket.
func dialLocal(ctx context.Context, host string) (net.Conn, error) {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("%q is not a unix socket", host)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// isRefused says that a socket exists and nobody listens at it.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
