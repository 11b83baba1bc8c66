// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command dev-build builds images for dev, which carries and starts it; see package buildkit.
package main

import (
	"os"

	"github.com/seed71221737/dev/engine/build/buildkit"
)

func main() { os.Exit(buildkit.Main()) }
