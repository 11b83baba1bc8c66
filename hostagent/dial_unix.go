// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package hostagent

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"syscall"
)

func dialControl(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// isAbsent says whether err means that nobody listens.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
