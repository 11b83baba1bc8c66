// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// security converts privileges, capabilities and security options.
func (c conversion) security(host *container.HostConfig) error {
	s := c.s
	switch s.Isolation {
	case "", string(container.IsolationDefault):
	default:
		return c.failf("isolation", "%q exists on Windows engines only", s.Isolation)
	}
	host.Isolation = container.Isolation(s.Isolation)
	host.CapAdd, host.CapDrop = s.CapAdd, s.CapDrop
	host.Privileged = s.Privileged
	for i, option := range s.SecurityOpt {
		field := fmt.Sprintf("security_opt[%d]", i)
		if option == "systempaths=unconfined" {
			// Empty lists, not absent ones: absent means the engine's defaults.
			host.MaskedPaths, host.ReadonlyPaths = []string{}, []string{}
			continue
		}
		name, value := splitOption(option)
		if value == "" && name != "no-new-privileges" {
			return c.failf(field, "%q is not in the form NAME=VALUE", option)
		}
		if path, ok := seccompFile(option); ok {
			profile, err := readSeccomp(c.p.RelativePath(path))
			if err != nil {
				return c.fail(field, err)
			}
			option = "seccomp=" + string(profile)
		}
		host.SecurityOpt = append(host.SecurityOpt, option)
	}
	return nil
}

// splitOption splits NAME=VALUE or, as of old, NAME:VALUE.
func splitOption(option string) (name, value string) {
	name, value, ok := strings.Cut(option, "=")
	if !ok {
		name, value, _ = strings.Cut(option, ":")
	}
	return name, value
}

// seccompFile is the profile that a security option names, if it does.
func seccompFile(option string) (string, bool) {
	name, value := splitOption(option)
	return value, name == "seccomp" && value != "unconfined" && value != "builtin"
}

// readSeccomp reads a profile in the form the engine takes it.
func readSeccomp(path string) ([]byte, error) {
	profile, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, profile); err != nil {
		return nil, fmt.Errorf("read seccomp profile %q: %w", path, err)
	}
	return b.Bytes(), nil
}
