// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// listenLocal listens on a named pipe, or on a unix socket where path is no pipe's. Only this user, administrators and the system may open it.
func listenLocal(path string) (net.Listener, error) {
	if !strings.HasPrefix(path, `\\.\pipe\`) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove the old socket %q: %w", path, err)
		}
		return net.Listen("unix", path)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", path, err)
	}
	l, err := winio.ListenPipe(path, &winio.PipeConfig{
		SecurityDescriptor: "D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;" + user.User.Sid.String() + ")",
		MessageMode:        true, // a pipe has an end of one direction only so: docker attach needs it
		InputBufferSize:    64 << 10,
		OutputBufferSize:   64 << 10,
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", path, err)
	}
	return l, nil
}
