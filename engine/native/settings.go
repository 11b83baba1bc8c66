// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// settingsSchema is the version of the stored settings.
const settingsSchema = 1

// Settings is how the engine is to run: the user's configuration and the
// environment of the command that started it, resolved. They are stored, so
// that the supervisor finds them at boot, when there is neither.
type Settings struct {
	Schema             int                  `json:"schema"`
	DataRoot           string               `json:"data_root,omitempty"` // empty: below Paths.Root
	RegistryMirrors    []string             `json:"registry_mirrors,omitempty"`
	InsecureRegistries []string             `json:"insecure_registries,omitempty"`
	CACertificates     []string             `json:"ca_certificates,omitempty"`
	HTTPProxy          string               `json:"http_proxy,omitempty"`
	HTTPSProxy         string               `json:"https_proxy,omitempty"`
	NoProxy            string               `json:"no_proxy,omitempty"`
	AddressPools       []config.AddressPool `json:"address_pools,omitempty"` // empty: picked at each start
	LogMaxSize         string               `json:"log_max_size"`
	LogMaxFile         int                  `json:"log_max_file"`
	LiveRestore        bool                 `json:"live_restore"`
	Firewall           Firewall             `json:"firewall"`
	SocketGroup        string               `json:"socket_group,omitempty"`
	CgroupParent       string               `json:"cgroup_parent,omitempty"`
	DNS                []string             `json:"dns,omitempty"`
	Debug              bool                 `json:"debug,omitempty"`
}

// NewSettings resolves the user's configuration; proxies that it does not name
// come from the environment, as curl and Go programs read it.
func NewSettings(c config.Engine, getenv func(string) string) Settings {
	env := func(upper, lower string) string { return cmp.Or(getenv(upper), getenv(lower)) }
	s := Settings{
		Schema:             settingsSchema,
		DataRoot:           c.DataRoot,
		RegistryMirrors:    c.RegistryMirrors,
		InsecureRegistries: c.InsecureRegistries,
		CACertificates:     c.CACertificates,
		HTTPProxy:          cmp.Or(c.Proxy.HTTP, env("HTTP_PROXY", "http_proxy")),
		HTTPSProxy:         cmp.Or(c.Proxy.HTTPS, env("HTTPS_PROXY", "https_proxy")),
		NoProxy:            cmp.Or(c.Proxy.No, env("NO_PROXY", "no_proxy")),
		AddressPools:       c.AddressPools,
		LogMaxSize:         cmp.Or(c.Log.MaxSize, "10m"),
		LogMaxFile:         cmp.Or(c.Log.MaxFile, 3),
		LiveRestore:        c.LiveRestore == nil || *c.LiveRestore,
		Firewall:           Firewall(cmp.Or(c.Firewall, string(FirewallAuto))),
		SocketGroup:        c.SocketGroup,
		Debug:              c.Debug,
	}
	for _, a := range c.DNS {
		s.DNS = append(s.DNS, a.String())
	}
	return s
}

// loadSettings reads what the last start stored; without it, the defaults.
func loadSettings(p Paths) (Settings, error) {
	data, err := os.ReadFile(p.settings())
	if errors.Is(err, fs.ErrNotExist) {
		return NewSettings(config.Engine{}, func(string) string { return "" }), nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read engine settings: %w", err)
	}
	var s Settings
	if err := json.Unmarshal(data, &s); err != nil {
		return Settings{}, fmt.Errorf("read engine settings %q: %w", p.settings(), err)
	}
	if s.Schema != settingsSchema {
		return Settings{}, fmt.Errorf("read engine settings %q: schema %d is not supported (this dev reads %d)",
			p.settings(), s.Schema, settingsSchema)
	}
	return s, nil
}

func (s Settings) save(p Paths) error {
	if old, err := loadSettings(p); err == nil && reflect.DeepEqual(old, s) {
		if _, err := os.Stat(p.settings()); err == nil {
			return nil
		}
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	// proxies may hold passwords
	if err := atomicfile.Write(p.settings(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("store engine settings: %w", err)
	}
	return nil
}

// SettingsChanged says that the engine was started with other settings.
func (s *Service) SettingsChanged(now Settings) (bool, error) {
	stored, err := loadSettings(s.Paths)
	return !reflect.DeepEqual(stored, now), err
}
