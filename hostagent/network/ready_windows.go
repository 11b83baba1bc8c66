// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"io"
	"syscall"
)

// readsReady says that copyReady works on this system: sockets here are read with a buffer at hand.
const readsReady = false

func copyReady(io.Writer, syscall.RawConn, *buffers) error { return errors.ErrUnsupported }
