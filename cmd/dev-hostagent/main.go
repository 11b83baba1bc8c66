// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command dev-hostagent is dev with the body of a machine's host agent in it. dev carries it and becomes it as `dev hostagent`.
package main

import (
	"os"

	"github.com/seed71221737/dev/cmd"
	"github.com/seed71221737/dev/machine/serve"
)

func main() { os.Exit(cmd.MainWith(serve.Serve)) }
