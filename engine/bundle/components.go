// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

const (
	mobyModule       = "github.com/moby/moby/v2"
	containerdModule = "github.com/containerd/containerd/v2"
	runcModule       = "github.com/opencontainers/runc"

	// initVersion is docker-init's own version: raise it with init/init.c.
	initVersion = "1.0.0"
)

// pin is what go.mod and the module cache say about one upstream module.
type pin struct {
	Module  string
	Version string // as in go.mod, such as "v2.3.7"
	Time    string // when that version was published, RFC 3339
	Dir     string // its unpacked source
}

// pins holds the pinned modules and what is derived from their sources.
type pins struct {
	Moby, Containerd, Runc pin
	Engine                 string // the Docker Engine release the moby module makes, such as "29.8.1"
	InitRevision           string // short digest of docker-init's source
}

// component is one program of the bundle.
type component struct {
	Name    string // file name under bin/
	Module  string // Go module it comes from; of this repository for docker-init
	Version string // as the program reports it
	License string // SPDX identifier

	Package string            // Go package to build; empty for a C program
	Tags    []string          // Go build tags
	Stamps  map[string]string // linker -X assignments
	Cgo     bool              // needs the C toolchain and libseccomp

	Source  string   // C source, relative to the module's folder
	Defines []string // C preprocessor definitions
}

// components lists the programs of the bundle in a fixed order. The reasons for
// the build tags stand in docs/adr/0002-engine-bundle.md.
func components(p pins) []component {
	// Pure Go look-ups of users and names: the programs must not depend on the
	// host's libc.
	pure := []string{"netgo", "osusergo", "static_build"}
	return []component{
		{
			Name: "containerd", Module: containerdModule, Version: p.Containerd.Version, License: "Apache-2.0",
			Package: containerdModule + "/cmd/containerd",
			Tags:    append(pure[:3:3], "urfave_cli_no_docs", "no_btrfs", "no_cri", "no_devmapper", "no_tracing", "no_zfs", "nri_no_wasm"),
			Stamps:  containerdStamps(p),
		},
		{
			Name: "containerd-shim-runc-v2", Module: containerdModule, Version: p.Containerd.Version, License: "Apache-2.0",
			Package: containerdModule + "/cmd/containerd-shim-runc-v2",
			Tags:    append(pure[:3:3], "urfave_cli_no_docs", "no_grpc"),
			Stamps:  containerdStamps(p),
		},
		{
			Name: "docker-init", Module: ownModule, Version: initVersion, License: "Apache-2.0",
			Source:  filepath.Join("init", "init.c"),
			Defines: []string{`INIT_VERSION="` + initVersion + `"`, `INIT_REVISION="` + p.InitRevision + `"`},
		},
		{
			Name: "docker-proxy", Module: mobyModule, Version: p.Moby.Version, License: "Apache-2.0",
			Package: mobyModule + "/cmd/docker-proxy",
			Tags:    pure,
			Stamps:  mobyStamps(p),
		},
		{
			Name: "dockerd", Module: mobyModule, Version: p.Moby.Version, License: "Apache-2.0",
			Package: mobyModule + "/cmd/dockerd",
			Tags:    append(pure[:3:3], "nri_no_wasm", "no_embedded_containerd", "exclude_graphdriver_btrfs"),
			Stamps:  mobyStamps(p),
		},
		{
			Name: "runc", Module: runcModule, Version: p.Runc.Version, License: "Apache-2.0",
			Package: runcModule,
			Tags:    []string{"netgo", "osusergo", "seccomp", "urfave_cli_no_docs"},
			Stamps:  runcStamps(p),
			Cgo:     true,
		},
	}
}

// Tags are revisions in the upstream repositories, and the module proxy records
// no commit: so a module's version stands where a commit would.

func mobyStamps(p pins) map[string]string {
	const pkg = mobyModule + "/dockerversion."
	return map[string]string{
		pkg + "Version":      p.Engine,
		pkg + "GitCommit":    p.Moby.Version,
		pkg + "BuildTime":    p.Moby.Time,
		pkg + "PlatformName": "dev",
	}
}

func containerdStamps(p pins) map[string]string {
	const pkg = containerdModule + "/version."
	return map[string]string{
		pkg + "Version":  p.Containerd.Version,
		pkg + "Revision": p.Containerd.Version,
	}
}

func runcStamps(p pins) map[string]string {
	return map[string]string{
		"main.gitCommit": p.Runc.Version,
		// Patch 0002 keeps compiled seccomp profiles apart by this.
		runcModule + "/libcontainer/seccomp.cacheVersion": p.Runc.Version,
	}
}

// command is a program call as data.
type command struct {
	Args []string
	Env  []string // added to a scrubbed environment
}

func (c command) String() string {
	return strings.Join(append(c.Env[:len(c.Env):len(c.Env)], c.Args...), " ")
}

// buildCommand returns the call that builds c for t into the file out.
func buildCommand(c component, t target, out string) command {
	if c.Package == "" {
		return cCommand(c, t, out)
	}
	return goCommand(c, t, out)
}

func goCommand(c component, t target, out string) command {
	ldflags := "-s -w -buildid="
	env := []string{"GOOS=linux", "GOARCH=" + t.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=vendor", "GOWORK=off", "GOEXPERIMENT="}
	if c.Cgo {
		ldflags += " -linkmode external -extldflags '-static -Wl,--build-id=none'"
		env = append(env, "CGO_ENABLED=1", "CC="+t.CC, "CGO_CFLAGS=-O2", "CGO_LDFLAGS=-O2")
		if t.PkgConfigDir != "" {
			env = append(env, "PKG_CONFIG_LIBDIR="+t.PkgConfigDir)
		}
	} else {
		env = append(env, "CGO_ENABLED=0")
	}
	for _, name := range sortedKeys(c.Stamps) {
		ldflags += fmt.Sprintf(" -X %s=%s", name, c.Stamps[name])
	}
	args := []string{"go", "build", "-trimpath", "-buildvcs=false", "-tags", strings.Join(c.Tags, ","), "-ldflags", ldflags, "-o", out, c.Package}
	return command{Args: args, Env: env}
}

func cCommand(c component, t target, out string) command {
	args := []string{t.CC, "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none"}
	for _, d := range c.Defines {
		args = append(args, "-D"+d)
	}
	return command{Args: append(args, "-o", out, c.Source)}
}
