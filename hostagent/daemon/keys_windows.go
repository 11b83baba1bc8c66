// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"strings"
	"time"

	"github.com/Microsoft/go-winio"
)

// dialKeys connects to the agent of Windows' OpenSSH (a named pipe), or to one at a unix socket.
func dialKeys(address string) (net.Conn, error) {
	limit := 5 * time.Second
	if pipe := strings.ReplaceAll(address, "/", `\`); strings.HasPrefix(pipe, `\\.\pipe\`) {
		return winio.DialPipe(pipe, &limit)
	}
	return net.DialTimeout("unix", address, limit)
}
