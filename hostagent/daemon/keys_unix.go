// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package daemon

import (
	"net"
	"time"
)

func dialKeys(address string) (net.Conn, error) {
	return net.DialTimeout("unix", address, 5*time.Second)
}
