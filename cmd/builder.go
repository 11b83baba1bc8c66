// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"

	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build"
	"github.com/seed71221737/dev/engine/config"
)

// newBuilder makes what builds images with an engine. What cannot be found out here is missed, and told, by the first build.
func (a *app) newBuilder(b engine.Backend) engine.Builder {
	exe, _ := os.Executable()
	dir, _ := config.Dir(a.getenv)
	return build.New(build.Options{Environ: a.env, Executable: exe, Dir: dir})(b)
}
