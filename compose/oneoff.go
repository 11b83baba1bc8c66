// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import "github.com/compose-spec/compose-go/v2/types"

// OneOff is what `run` changes about a service for one container.
type OneOff struct {
	// Slug is the random part of the container's name: at least 12 hexadecimal digits.
	Slug string
	// Name replaces the name made from the slug.
	Name       string
	Command    []string
	Entrypoint []string // nil: the service's; empty: none
	Env        []string // NAME=VALUE, or NAME to take it from the project's environment
	Labels     []string // NAME=VALUE
	Volumes    []string // short syntax
	Publish    []string // short syntax
	User       string
	WorkingDir string
	CapAdd     []string
	CapDrop    []string
	// Tty, Stdin: the container gets a terminal, keeps its standard input open.
	Tty, Stdin bool
	Detach     bool
	AutoRemove bool
	// UseAliases gives it the service's network aliases, ServicePorts the service's published ports.
	UseAliases, ServicePorts bool
}

// Apply returns the service that the one-off container is made from.
func (o OneOff) Apply(p *types.Project, s types.ServiceConfig) (types.ServiceConfig, error) {
	return s, nil
}
