// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package network

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// readsReady says that copyReady works on this system.
const readsReady = true

// copyReady copies until the end of the stream. A buffer is taken only once there is something to read.
func copyReady(dst io.Writer, src syscall.RawConn, lent *buffers) error {
	for {
		var buf *[bufferSize]byte
		var n int
		var failed error
		err := src.Read(func(fd uintptr) bool {
			buf = lent.get()
			for {
				n, failed = unix.Read(int(fd), buf[:])
				if !errors.Is(failed, unix.EINTR) {
					break
				}
			}
			if errors.Is(failed, unix.EAGAIN) {
				lent.put(buf)
				return false
			}
			return true
		})
		if err != nil {
			return err
		}
		if failed == nil && n > 0 {
			_, failed = dst.Write(buf[:n])
			lent.put(buf)
			if failed != nil {
				return failed
			}
			continue
		}
		lent.put(buf)
		if failed != nil {
			return os.NewSyscallError("read", failed)
		}
		return nil
	}
}
