// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package config reads the user's settings, ~/.dev/config.yaml.
//
// A file that is not there means the defaults. Everything else is strict: an
// unknown key, a value of the wrong kind or one that cannot work is an error
// that names file, line and key, because a setting that is silently ignored is
// found only when it was needed. docs/configuration.md describes every key.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"github.com/mitchellh/go-homedir"
	"gopkg.in/yaml.v3"
)

// FileName is the name of the file in the user's folder.
const FileName = "config.yaml"

// Config is the whole file.
type Config struct {
	Engine    Engine    `yaml:"engine"`
	Snapshots Snapshots `yaml:"snapshots"`
	Logs      Logs      `yaml:"logs"`
	// Environments are the settings of copies of applications side by side.
	Environments Environments `yaml:"environments"`
	// MachineImages says where the images of virtual machines come from.
	MachineImages MachineImages `yaml:"machine-images"`
}

// Environments are the settings of environments.
type Environments struct {
	// Ports are the host ports that environments get: FIRST-LAST; empty is dev's own range.
	Ports string `yaml:"ports"`
}

// Logs are the settings of containers' output.
type Logs struct {
	// History keeps the output of containers that are replaced, for `logs --history`; nil is yes.
	History *bool `yaml:"history"`
}

// Snapshots are the settings of volume snapshots.
type Snapshots struct {
	// BeforeDown saves volumes before they are removed; nil is yes.
	BeforeDown *bool `yaml:"before-down"`
	// Limit is the most content a volume may have to be saved so: a number of bytes with an optional unit k, m, g; empty is 2g.
	Limit string `yaml:"limit"`
}

// Engine are the settings of the engine that dev carries.
type Engine struct {
	// RegistryMirrors are tried before Docker Hub: URLs.
	RegistryMirrors []string `yaml:"registry-mirrors"`
	// InsecureRegistries are reached without checking TLS: host[:port] or CIDR.
	InsecureRegistries []string `yaml:"insecure-registries"`
	// CACertificates are PEM files trusted beside the host's own; absolute
	// paths after Load.
	CACertificates []string `yaml:"ca-certificates"`
	// Proxy for pulls; empty members come from the environment.
	Proxy Proxy `yaml:"proxy"`
	// AddressPools replace the pools that dev picks for new networks.
	AddressPools []AddressPool `yaml:"address-pools"`
	// DataRoot holds images, containers and volumes; empty is the default.
	DataRoot string `yaml:"data-root"`
	// Log bounds the logs of containers.
	Log Log `yaml:"log"`
	// LiveRestore keeps containers running while the engine restarts; nil is
	// yes. Swarm mode needs no.
	LiveRestore *bool `yaml:"live-restore"`
	// Firewall is auto (or empty), nftables or iptables.
	Firewall string `yaml:"firewall"`
	// SocketGroup may use the socket without being root; empty is docker.
	SocketGroup string `yaml:"socket-group"`
	// DNS are the servers that containers ask; empty means the host's.
	DNS []netip.Addr `yaml:"dns"`
	// Debug makes the engine's own logs verbose.
	Debug bool `yaml:"debug"`
}

// Proxy is how the engine reaches registries.
type Proxy struct {
	HTTP  string `yaml:"http"`
	HTTPS string `yaml:"https"`
	No    string `yaml:"no"`
}

// AddressPool is a range that networks get their subnets from: Base is split
// into subnets whose prefix has Size bits.
type AddressPool struct {
	Base netip.Prefix `yaml:"base"`
	Size int          `yaml:"size"`
}

// Log bounds the log of each container.
type Log struct {
	// MaxSize is a number of bytes with an optional unit k, m or g; empty is 10m.
	MaxSize string `yaml:"max-size"`
	// MaxFile is the number of files kept; zero is 3.
	MaxFile int `yaml:"max-file"`
}

// Dir is the user's folder: DEV_HOME, or ~/.dev.
func Dir(getenv func(string) string) (string, error) {
	dir := getenv("DEV_HOME")
	if dir == "" {
		dir = "~/.dev"
	}
	dir, err := homedir.Expand(dir)
	if err != nil {
		return "", fmt.Errorf("find the folder of dev's settings: %w", err)
	}
	return filepath.Abs(dir)
}

// Load reads and validates the file. Without one it returns the defaults.
func Load(name string) (Config, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read settings: %w", err)
	}
	return Parse(name, data)
}

// Parse reads and validates the content of a file. The name stands in errors;
// relative paths in the file are relative to the file's folder.
func Parse(name string, data []byte) (Config, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return Config{}, syntaxError(name, err)
	}
	if len(doc.Content) == 0 {
		return Config{}, nil // empty, or only comments
	}
	if err := checkKeys(name, doc.Content[0]); err != nil {
		return Config{}, err
	}
	var c Config
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, syntaxError(name, err)
	}
	if err := c.Engine.validate(position{name: name, doc: doc.Content[0]}); err != nil {
		return Config{}, err
	}
	if err := c.MachineImages.validate(position{name: name, doc: doc.Content[0]}); err != nil {
		return Config{}, err
	}
	if _, err := c.Snapshots.LimitBytes(); err != nil {
		return Config{}, &Error{File: name, Msg: "snapshots." + err.Error()}
	}
	return c, c.Engine.expand(filepath.Dir(name))
}

// LimitBytes is the limit in bytes; 0 if none is set.
func (s Snapshots) LimitBytes() (int64, error) {
	if s.Limit == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(s.Limit)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("limit: %q is not a size, such as 500m or 2g", s.Limit)
	}
	return n, nil
}

// expand makes paths absolute.
func (e *Engine) expand(dir string) error {
	for i := range e.CACertificates {
		if err := expandPath(&e.CACertificates[i], dir); err != nil {
			return err
		}
	}
	return expandPath(&e.DataRoot, dir)
}

func expandPath(path *string, dir string) error {
	if *path == "" {
		return nil
	}
	full, err := homedir.Expand(*path)
	if err != nil {
		return fmt.Errorf("expand %q: %w", *path, err)
	}
	if !filepath.IsAbs(full) {
		full = filepath.Join(dir, full)
	}
	*path = filepath.Clean(full)
	return nil
}
