// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// SystemHost is where a Docker Engine of the system listens.
const SystemHost = "npipe:////./pipe/docker_engine"

// dialLocal connects to a named pipe or a unix socket.
func dialLocal(ctx context.Context, host string) (net.Conn, error) {
	if path, ok := strings.CutPrefix(host, "npipe://"); ok {
		return winio.DialPipeContext(ctx, strings.ReplaceAll(path, "/", `\`))
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("%q is neither a named pipe nor a unix socket", host)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// isRefused says that a socket exists and nobody listens at it.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
