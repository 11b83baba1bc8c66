// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Names of dockerd's flags whose key in its configuration file is another word: a flag that may be repeated has a plural there.
var (
	listKeys = map[string]string{
		"label": "labels", "registry-mirror": "registry-mirrors", "insecure-registry": "insecure-registries", "storage-opt": "storage-opts",
		"exec-opt": "exec-opts", "authorization-plugin": "authorization-plugins", "dns": "dns", "dns-opt": "dns-opts", "dns-search": "dns-search",
		"cdi-spec-dir": "cdi-spec-dirs", "node-generic-resource": "node-generic-resources", "default-address-pool": "default-address-pools",
	}
	mapKeys = map[string]string{"log-opt": "log-opts", "default-network-opt": "default-network-opts", "add-runtime": "runtimes"}
	// ownKeys belong to the machine: with another value nobody could reach the engine, or its data would be lost at the next boot.
	ownKeys = []string{"host", "hosts", "H", "data-root", "exec-root", "pidfile", "config-file", "containerd", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"}
)

// Config renders the options as keys of dockerd's configuration file.
func (e EngineOptions) Config() (map[string]json.RawMessage, error) {
	values := map[string]any{}
	for _, o := range e.Options {
		if err := addOption(values, o); err != nil {
			return nil, err
		}
	}
	for key, list := range map[string][]string{"labels": e.Labels, "registry-mirrors": e.RegistryMirrors, "insecure-registries": e.InsecureRegistries} {
		for _, v := range list {
			addToList(values, key, v)
		}
	}
	if e.StorageDriver != "" {
		values["storage-driver"] = e.StorageDriver
	}
	if _, err := e.Environment(); err != nil {
		return nil, err
	}
	config := map[string]json.RawMessage{}
	for key, v := range values {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("engine option %q: %w", key, err)
		}
		config[key] = raw
	}
	return config, nil
}

// addOption adds one name=value; a name alone is a switch that is on.
func addOption(values map[string]any, option string) error {
	name, value, given := strings.Cut(strings.TrimLeft(option, "-"), "=")
	if name == "" {
		return fmt.Errorf("engine option %q has no name", option)
	}
	if slices.Contains(ownKeys, name) {
		return fmt.Errorf("engine option %q is the machine's own", name)
	}
	if key, ok := listKeys[name]; ok {
		addToList(values, key, value)
		return nil
	}
	if key, ok := mapKeys[name]; ok {
		k, v, ok := strings.Cut(value, "=")
		if !ok {
			return fmt.Errorf("engine option %q wants a key and a value: %s=key=value", option, name)
		}
		addToMap(values, key, k, v)
		return nil
	}
	values[name] = scalar(value, given)
	return nil
}

// scalar is a value as the configuration file spells it: switches and numbers are not quoted there.
func scalar(value string, given bool) any {
	if !given {
		return true
	}
	if value == "true" || value == "false" {
		return value == "true"
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	return value
}

func addToList(values map[string]any, key, v string) {
	list, _ := values[key].([]string)
	values[key] = append(list, v)
}

func addToMap(values map[string]any, key, k, v string) {
	m, _ := values[key].(map[string]string)
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	values[key] = m
}

// Environment is Env as a map; a name alone is an error, because this process's environment is not the machine's.
func (e EngineOptions) Environment() (map[string]string, error) {
	env := map[string]string{}
	for _, entry := range e.Env {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("engine variable %q is not NAME=value", entry)
		}
		env[name] = value
	}
	return env, nil
}
