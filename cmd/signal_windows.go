// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"syscall"
)

// forwardable are the signals that `run` and `attach` pass on to a container: those that a Windows console knows.
var forwardable = []os.Signal{os.Interrupt, syscall.SIGTERM}

// signalName is the engine's name of a signal: "SIGINT".
func signalName(s os.Signal) string {
	if s == os.Interrupt {
		return "SIGINT"
	}
	return "SIGTERM"
}
