// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
)

// dialLocal connects to a named pipe, or a unix socket where Windows has them.
func dialLocal(ctx context.Context, scheme, path string) (net.Conn, error) {
	if scheme == "unix" {
		return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return winio.DialPipeContext(ctx, strings.ReplaceAll(path, "/", `\`))
}
