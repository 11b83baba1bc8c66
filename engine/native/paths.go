// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"fmt"
	"path/filepath"
)

// Paths are the roots of everything the service keeps. All names below them
// are given by methods, here and nowhere else.
type Paths struct {
	// Root keeps what outlives a reboot: unpacked bundles, settings, logs and
	// the engine's data.
	Root string
	// Run keeps sockets, locks and generated configuration.
	Run string
	// Bundles keeps unpacked bundles; empty is Root/engine. Another folder may
	// be shared by several engines: nothing is removed from it.
	Bundles string
}

// DefaultPaths are /var/lib/dev and /run/dev. DEV_ENGINE_ROOT moves everything
// below one folder, for a second engine beside the first.
func DefaultPaths(getenv func(string) string) Paths {
	if dir := getenv("DEV_ENGINE_ROOT"); dir != "" {
		return Paths{Root: dir, Run: filepath.Join(dir, "run")}
	}
	return Paths{Root: "/var/lib/dev", Run: "/run/dev"}
}

// maxSocket is the longest path that a unix socket can have on Linux.
const maxSocket = 107

// validate refuses roots that cannot work.
func (p Paths) validate() error {
	for _, dir := range []string{p.Root, p.Run} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("engine folder %q is not an absolute path", dir)
		}
	}
	if longest := p.containerdSocket() + ".ttrpc"; len(longest) > maxSocket {
		return fmt.Errorf("engine folder %q is too long: socket %q has %d bytes, %d are possible",
			p.Run, longest, len(longest), maxSocket)
	}
	return nil
}

// Socket is the Docker API's unix socket.
func (p Paths) Socket() string { return filepath.Join(p.Run, "docker.sock") }

// Host is the Docker API's address.
func (p Paths) Host() string { return "unix://" + p.Socket() }

// LogDir keeps one log file per component.
func (p Paths) LogDir() string { return filepath.Join(p.Root, "log") }

// bundles keeps one folder per unpacked bundle.
func (p Paths) bundles() string {
	if p.Bundles != "" {
		return p.Bundles
	}
	return filepath.Join(p.Root, "engine")
}

func (p Paths) dockerData() string       { return filepath.Join(p.Root, "docker") }
func (p Paths) containerdData() string   { return filepath.Join(p.Root, "containerd") }
func (p Paths) settings() string         { return filepath.Join(p.Root, "settings.json") }
func (p Paths) control() string          { return filepath.Join(p.Run, "engine.sock") }
func (p Paths) runLock() string          { return filepath.Join(p.Run, "run.lock") }
func (p Paths) startLock() string        { return filepath.Join(p.Run, "start.lock") }
func (p Paths) failure() string          { return filepath.Join(p.Run, "failure.json") }
func (p Paths) daemonConfig() string     { return filepath.Join(p.Run, "daemon.json") }
func (p Paths) containerdConfig() string { return filepath.Join(p.Run, "containerd.toml") }
func (p Paths) trust() string            { return filepath.Join(p.Run, "ca-certificates.pem") }
func (p Paths) notify() string           { return filepath.Join(p.Run, "notify") }
func (p Paths) execRoot() string         { return filepath.Join(p.Run, "docker") }
func (p Paths) containerdState() string  { return filepath.Join(p.Run, "containerd") }
func (p Paths) containerdSocket() string {
	return filepath.Join(p.containerdState(), "containerd.sock")
}
func (p Paths) log(component string) string { return filepath.Join(p.LogDir(), component+".log") }
