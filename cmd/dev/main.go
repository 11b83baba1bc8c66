// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command dev runs multi-container applications on a workstation.
package main

import (
	"os"

	"github.com/seed71221737/dev/cmd"
)

func main() { os.Exit(cmd.Main()) }
