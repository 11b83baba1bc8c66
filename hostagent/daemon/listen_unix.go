// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// socketMax is how long the path of a unix socket may be: BSD systems have 104 bytes with the final zero.
const socketMax = 103

// pathError says that a path is too long for a socket.
type pathError struct{ path string }

func (e *pathError) Error() string {
	return fmt.Sprintf("listen at %q: the path has %d bytes, a socket's may have %d", e.path, len(e.path), socketMax)
}

// Hint names the way out.
func (e *pathError) Hint() string {
	return "set DEV_HOME to a folder with a shorter path, or give the machine a shorter name"
}

// listenLocal listens on a unix socket that only this user may open. A stale one is replaced: the run lock says that it is nobody's.
func listenLocal(path string) (net.Listener, error) {
	if len(path) > socketMax {
		return nil, &pathError{path}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket %q: %w", path, err)
	}
	// Made in a folder of its own and moved: there is no moment at which others may open it.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", path, err)
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "s")
	if len(temp) > socketMax && runtime.GOOS != "linux" || len(temp) > 107 {
		return listenHere(path)
	}
	l, err := listenHere(temp)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Rename(temp, path); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %q: %w", path, err), l.Close())
	}
	return &unixListener{UnixListener: l, path: path}, nil
}

func listenHere(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %q: %w", path, err), l.Close())
	}
	return l, nil
}

// unixListener removes its socket where it was moved to.
type unixListener struct {
	*net.UnixListener
	path string
}

func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	if rmErr := os.Remove(l.path); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		return errors.Join(err, rmErr)
	}
	return err
}
