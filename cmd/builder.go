// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"

	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build"
	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/internal/program"
)

// carried says where dev's other programs are. What cannot be found out here is missed, and told, by who needs one.
func (a *app) carried() program.Options {
	exe, _ := os.Executable()
	dir, _ := config.Dir(a.getenv)
	return program.Options{Environ: a.env, Executable: exe, Dir: dir}
}

// newBuilder makes what builds images with an engine.
func (a *app) newBuilder(b engine.Backend) engine.Builder { return build.New(a.carried())(b) }
