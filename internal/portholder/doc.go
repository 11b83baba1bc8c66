// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package portholder names the process that holds a port of this host, for messages about ports that are taken. What it says may be outdated when it is
// read; nothing is to be decided by it.
package portholder

import "fmt"

// Process is one that holds a port.
type Process struct {
	PID  int
	Name string
}

func (p Process) String() string { return fmt.Sprintf("process %s (pid %d)", p.Name, p.PID) }
