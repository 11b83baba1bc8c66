// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"
)

// module is what `go list -m -json` says, as far as it is used.
type module struct {
	Path    string
	Version string
	Time    string
	Dir     string
	Replace *module
}

// listModules asks the go command about modules, downloading what is missing.
// The answer has the order of paths.
func listModules(ctx context.Context, dir string, paths ...string) ([]module, error) {
	// The build list has them all, but only a download gives each a folder.
	args := append([]string{"go", "mod", "download"}, paths...)
	if _, err := output(ctx, dir, command{Args: args, Env: listEnv()}); err != nil {
		return nil, fmt.Errorf("download modules: %w", err)
	}
	args = append([]string{"go", "list", "-m", "-json"}, paths...)
	out, err := output(ctx, dir, command{Args: args, Env: listEnv()})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	return parseModules([]byte(out))
}

func listEnv() []string { return []string{"GOFLAGS=-mod=readonly", "GOWORK=off"} }

// parseModules reads the stream of JSON objects that `go list` writes.
func parseModules(data []byte) ([]module, error) {
	var found []module
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var m module
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read go list's answer: %w", err)
		}
		if m.Replace != nil {
			m.Dir, m.Time = m.Replace.Dir, m.Replace.Time
		}
		found = append(found, m)
	}
}

// readPins finds the pinned modules of the bundle whose go.mod is in dir.
func readPins(ctx context.Context, dir string) (pins, error) {
	ms, err := listModules(ctx, dir, mobyModule, containerdModule, runcModule)
	if err != nil {
		return pins{}, err
	}
	if len(ms) != 3 {
		return pins{}, fmt.Errorf("list modules: want 3 answers, got %d", len(ms))
	}
	var p pins
	for i, to := range []*pin{&p.Moby, &p.Containerd, &p.Runc} {
		*to = pin{Module: ms[i].Path, Version: ms[i].Version, Time: ms[i].Time, Dir: ms[i].Dir}
	}
	if p.Moby.Time == "" {
		return pins{}, fmt.Errorf("list module %q: the module proxy gives no time for %s", mobyModule, p.Moby.Version)
	}
	if p.Engine, err = engineRelease(p.Moby.Dir); err != nil {
		return pins{}, err
	}
	sum, _, err := hashFile(filepath.Join(dir, "init", "init.c"))
	if err != nil {
		return pins{}, err
	}
	p.InitRevision = sum[:12]
	return p, nil
}

// engineRelease reads which Docker Engine release the moby sources in dir make.
// The module has a version line of its own (v2.0.0-beta.N); users and tools know
// and compare the releases' (29.x.y).
func engineRelease(dir string) (string, error) {
	path := filepath.Join(dir, "releases", "versions.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the engine's release: %w", err)
	}
	var v struct {
		Docker struct {
			Next string `yaml:"next"`
		} `yaml:"docker"`
	}
	if err := yaml.Unmarshal(data, &v); err != nil {
		return "", fmt.Errorf("read the engine's release from %q: %w", path, err)
	}
	if v.Docker.Next == "" {
		return "", fmt.Errorf("read the engine's release from %q: no docker.next", path)
	}
	return v.Docker.Next, nil
}
