// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
)

// dialControl connects to a named pipe, or to a unix socket where path is no pipe's.
func dialControl(ctx context.Context, path string) (net.Conn, error) {
	if strings.HasPrefix(path, `\\.\pipe\`) {
		return winio.DialPipeContext(ctx, path)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// isAbsent says whether err means that nobody listens.
func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
