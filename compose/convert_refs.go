// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// later is what a container spec still needs from the operations before it: the containers of other services that it refers to.
type later struct {
	p    *types.Project
	s    types.ServiceConfig
	refs map[string]Ref
}

// later remembers the references that are not known yet, if any.
func (c conversion) later() *later {
	for _, name := range References(c.s) {
		if ref := c.in.Services[name]; ref.ID == "" && ref.Op != 0 {
			return &later{p: c.p, s: c.s, refs: c.in.Services}
		}
	}
	return nil
}

// Resolve fills in what only the plan's earlier operations know: the image's ID, and the containers that stand for other services. It
// returns a copy. Engines call it before they create the container.
func (c ContainerSpec) Resolve(made Results) (ContainerSpec, error) {
	image := made.Resolve(c.Image)
	if image == "" && c.later == nil {
		return c, nil
	}
	config := *c.Config
	config.Labels = maps.Clone(c.Config.Labels)
	c.Config = &config
	if image != "" {
		config.Labels[LabelImage] = image
	}
	if c.later == nil {
		return c, nil
	}
	refs := map[string]Ref{}
	for name, ref := range c.later.refs {
		refs[name] = Ref{ID: made.Resolve(ref)}
	}
	hash, err := ServiceHash(c.later.p, WithContainers(c.later.s, refs))
	if err != nil {
		return c, err
	}
	config.Labels[LabelConfigHash] = hash
	host := *c.Host
	c.Host = &host
	return c, (conversion{p: c.later.p, s: c.later.s, in: ContainerInput{Services: refs}}).namespaces(&config, &host)
}

// References lists the services whose containers a service's container refers to, sorted: network_mode, ipc and pid service:NAME, and
// volumes_from.
func References(s types.ServiceConfig) []string {
	var names []string
	for _, mode := range []string{s.NetworkMode, s.Ipc, s.Pid} {
		if name, ok := strings.CutPrefix(mode, types.ServicePrefix); ok {
			names = append(names, name)
		}
	}
	for _, from := range s.VolumesFrom {
		if !strings.HasPrefix(from, types.ContainerPrefix) {
			name, _, _ := strings.Cut(from, ":")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// WithContainers returns the service with its references to other services replaced by their containers, as [ServiceHash] wants them. What
// is not in the map, or only made by an operation yet, stays.
func WithContainers(s types.ServiceConfig, services map[string]Ref) types.ServiceConfig {
	s.NetworkMode = sharedMode(s.NetworkMode, services)
	s.Ipc = sharedMode(s.Ipc, services)
	s.Pid = sharedMode(s.Pid, services)
	s.VolumesFrom = slices.Clone(s.VolumesFrom)
	for i, from := range s.VolumesFrom {
		parts := strings.Split(from, ":")
		if parts[0] == "container" && len(parts) > 1 {
			s.VolumesFrom[i] = parts[1]
		} else if ref := services[parts[0]]; ref.ID != "" {
			s.VolumesFrom[i] = ref.ID
		}
	}
	return s
}

func sharedMode(mode string, services map[string]Ref) string {
	if name, ok := strings.CutPrefix(mode, types.ServicePrefix); ok && services[name].ID != "" {
		return types.ContainerPrefix + services[name].ID
	}
	return mode
}

// namespaces fills in the namespaces, and the volumes, that the container shares with the host or with other containers.
func (c conversion) namespaces(config *container.Config, host *container.HostConfig) error {
	shared := WithContainers(c.s, c.in.Services)
	for field, mode := range map[string]string{"network_mode": c.s.NetworkMode, "ipc": c.s.Ipc, "pid": c.s.Pid} {
		if name, ok := strings.CutPrefix(mode, types.ServicePrefix); ok && c.in.Services[name] == (Ref{}) {
			return c.failf(field, "service %q has no container", name)
		}
	}
	if c.s.Uts != "" && !container.UTSMode(c.s.Uts).Valid() {
		return c.failf("uts", "%q is not supported by the engine; only \"host\" is", c.s.Uts)
	}
	if !container.CgroupnsMode(c.s.Cgroup).Valid() {
		return c.failf("cgroup", "%q is not supported by the engine; \"host\" and \"private\" are", c.s.Cgroup)
	}
	host.IpcMode = container.IpcMode(shared.Ipc)
	host.PidMode = container.PidMode(shared.Pid)
	host.UTSMode = container.UTSMode(c.s.Uts)
	host.UsernsMode = container.UsernsMode(c.s.UserNSMode)
	host.CgroupnsMode = container.CgroupnsMode(c.s.Cgroup)
	if c.s.NetworkMode != "" {
		host.NetworkMode = container.NetworkMode(shared.NetworkMode)
		if err := c.checkNetworkMode(); err != nil {
			return err
		}
	}
	var err error
	host.VolumesFrom, err = c.volumesFrom()
	return err
}

// volumesFrom lists the containers whose volumes are mounted too, with their access mode.
func (c conversion) volumesFrom() ([]string, error) {
	var list []string
	for _, from := range c.s.VolumesFrom {
		if id, ok := strings.CutPrefix(from, types.ContainerPrefix); ok {
			list = append(list, id)
			continue
		}
		name, mode, _ := strings.Cut(from, ":")
		ref, ok := c.in.Services[name]
		if !ok {
			return nil, c.failf("volumes_from", "service %q has no container", name)
		}
		id := ref.ID
		if id == "" {
			id = name // until Resolve
		}
		if mode != "" {
			id = fmt.Sprintf("%s:%s", id, mode)
		}
		list = append(list, id)
	}
	return list, nil
}

// checkNetworkMode refuses what has no meaning in a network namespace that is not the container's own.
func (c conversion) checkNetworkMode() error {
	s := c.s
	shared := strings.HasPrefix(s.NetworkMode, types.ServicePrefix) || strings.HasPrefix(s.NetworkMode, types.ContainerPrefix)
	if !shared && s.NetworkMode != "host" {
		return nil
	}
	for _, f := range []struct {
		field   string
		set     bool
		refused bool
	}{
		{"ports", len(s.Ports) > 0, shared},
		{"expose", len(s.Expose) > 0, shared},
		{"hostname", s.Hostname != "", shared},
		{"dns", len(s.DNS) > 0, shared},
		{"extra_hosts", len(s.ExtraHosts) > 0, shared},
		{"links", len(s.Links)+len(s.ExternalLinks) > 0, true},
		{"mac_address", s.MacAddress != "", true},
	} {
		if f.set && f.refused {
			return c.failf(f.field, "cannot be used with network_mode %q", s.NetworkMode)
		}
	}
	return nil
}
