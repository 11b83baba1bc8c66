// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

package engine

import "net/netip"

// portHolder is known on Linux only: elsewhere an engine runs in a virtual machine, and the port's holder is told by what forwards it.
func portHolder(string, netip.Addr, uint16) (process, bool) { return process{}, false }
