// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// leftoverGrace is how long a component without supervisor may take to end.
const leftoverGrace = 5 * time.Second

// programs is where the executables of processes of ours really lie.
func (p Paths) programs() string {
	if dir, err := filepath.EvalSymlinks(p.bundles()); err == nil {
		return dir
	}
	return p.bundles()
}

// isComponent says that a process is dockerd or containerd of this service:
// the executable is one of a bundle's, and it runs with our configuration.
func isComponent(p Paths, proc process) bool {
	config := map[string]string{"dockerd": p.daemonConfig(), "containerd": p.containerdConfig()}[filepath.Base(proc.exe)]
	return config != "" && strings.HasPrefix(proc.exe, p.programs()+"/") && slices.Contains(arguments(proc.pid), config)
}

// isShim says that a process is the shim of one of our containers.
func isShim(p Paths, proc process) bool {
	return filepath.Base(proc.exe) == "containerd-shim-runc-v2" && slices.Contains(arguments(proc.pid), p.containerdSocket())
}

// endLeftovers ends components that a killed supervisor left: the kernel told
// them to end, and this makes sure. Containers go on.
func endLeftovers(ctx context.Context, log *slog.Logger, p Paths) error {
	all, err := processesUnder(p.programs())
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"dockerd", "containerd"} { // dockerd first: it needs the other to end well
		for _, proc := range all {
			if filepath.Base(proc.exe) == name && isComponent(p, proc) {
				log.Warn("ending a component without supervisor", "name", name, "pid", proc.pid)
				errs = append(errs, proc.end(ctx, leftoverGrace))
			}
		}
	}
	return errors.Join(errs...)
}
