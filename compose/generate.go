// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// Found is a container to describe as a service, with what the engine knows of it.
type Found struct {
	Container container.InspectResponse
	// Image is the configuration of its image: what comes from there need not be said again. Nil if the image is gone.
	Image *container.Config
}

// GenerateOptions say how containers are described.
type GenerateOptions struct {
	// Project is the project's name; empty leaves it out.
	Project string
	// Dir is the project's folder: binds of what lies in it are written relative to it. Empty: all are absolute.
	Dir string
	// Networks and Volumes hold the labels of the engine's networks and volumes by their names: those of the project are described as its own, others
	// as external.
	Networks, Volumes map[string]map[string]string
}

// Generate describes containers as a project: services that would make the same containers. Containers of a Compose service become one service with as
// many replicas, others one each, by their name.
func Generate(found []Found, o GenerateOptions) *types.Project {
	g := &generator{GenerateOptions: o, p: &types.Project{
		Name: o.Project, Services: types.Services{}, Networks: types.Networks{}, Volumes: types.Volumes{},
	}}
	for _, f := range found {
		if f.Container.Config == nil || f.Container.HostConfig == nil {
			continue
		}
		name := cmp.Or(f.Container.Config.Labels[LabelService], strings.TrimPrefix(f.Container.Name, "/"))
		if s, ok := g.p.Services[name]; ok {
			n := *cmp.Or(s.Scale, new(1)) + 1
			s.Scale = &n
			s.ContainerName = ""
			g.p.Services[name] = s
			continue
		}
		g.p.Services[name] = g.service(name, f)
	}
	return g.p
}

// generator is one description being made.
type generator struct {
	GenerateOptions
	p *types.Project
}

func (g *generator) service(name string, f Found) types.ServiceConfig {
	c, host := f.Container.Config, f.Container.HostConfig
	image := cmp.Or(f.Image, &container.Config{})
	s := types.ServiceConfig{Name: name}
	s.Image, s.Labels, s.Environment = c.Image, ownLabels(c.Labels, image.Labels), ownVariables(c.Env, image.Env)
	if !slices.Equal(c.Entrypoint, image.Entrypoint) {
		s.Entrypoint = types.ShellCommand(c.Entrypoint)
	}
	if !slices.Equal(c.Cmd, image.Cmd) || len(s.Entrypoint) > 0 {
		s.Command = types.ShellCommand(c.Cmd)
	}
	s.User, s.WorkingDir = unless(c.User, image.User), unless(c.WorkingDir, image.WorkingDir)
	s.StopSignal = unless(c.StopSignal, image.StopSignal)
	s.Tty, s.StdinOpen = c.Tty, c.OpenStdin
	if !strings.HasPrefix(f.Container.ID, c.Hostname) {
		s.Hostname = c.Hostname
	}
	s.DomainName = c.Domainname
	if c.StopTimeout != nil {
		d := types.Duration(time.Duration(*c.StopTimeout) * time.Second)
		s.StopGracePeriod = &d
	}
	if h := c.Healthcheck; h != nil && !sameHealth(h, image.Healthcheck) {
		s.HealthCheck = healthOf(h)
	}
	g.host(&s, host)
	g.mounts(&s, f.Container.Mounts)
	g.networks(&s, f.Container)
	s.Ports = portsOf(host.PortBindings)
	return s
}

// host takes over what belongs to the machine's side of a container.
func (g *generator) host(s *types.ServiceConfig, h *container.HostConfig) {
	switch r := h.RestartPolicy; {
	case r.Name == container.RestartPolicyOnFailure && r.MaximumRetryCount > 0:
		s.Restart = string(r.Name) + ":" + strconv.Itoa(r.MaximumRetryCount)
	case r.Name != container.RestartPolicyDisabled:
		s.Restart = string(r.Name)
	}
	s.Privileged, s.ReadOnly, s.Init = h.Privileged, h.ReadonlyRootfs, h.Init
	s.CapAdd, s.CapDrop, s.SecurityOpt, s.GroupAdd = h.CapAdd, h.CapDrop, h.SecurityOpt, h.GroupAdd
	s.Sysctls = h.Sysctls
	s.MemLimit, s.MemReservation = types.UnitBytes(h.Memory), types.UnitBytes(h.MemoryReservation)
	s.CPUS, s.CPUSet, s.CPUShares = float32(h.NanoCPUs)/1e9, h.CpusetCpus, h.CPUShares
	if h.PidsLimit != nil {
		s.PidsLimit = *h.PidsLimit
	}
	for _, a := range h.DNS {
		s.DNS = append(s.DNS, a.String())
	}
	s.DNSSearch = h.DNSSearch
	if len(h.ExtraHosts) > 0 {
		s.ExtraHosts, _ = types.NewHostsList(h.ExtraHosts)
	}
	for _, d := range h.Devices {
		s.Devices = append(s.Devices, types.DeviceMapping{Source: d.PathOnHost, Target: d.PathInContainer, Permissions: d.CgroupPermissions})
	}
	for _, target := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		t := target
		if h.Tmpfs[target] != "" {
			t += ":" + h.Tmpfs[target]
		}
		s.Tmpfs = append(s.Tmpfs, t)
	}
	if h.PidMode.IsHost() {
		s.Pid = string(h.PidMode)
	}
	if h.IpcMode.IsHost() {
		s.Ipc = string(h.IpcMode)
	}
}

// mounts takes over what is mounted; volumes become the project's or external ones, anonymous ones stay anonymous.
func (g *generator) mounts(s *types.ServiceConfig, mounts []container.MountPoint) {
	for _, m := range slices.SortedFunc(slices.Values(mounts), func(a, b container.MountPoint) int { return cmp.Compare(a.Destination, b.Destination) }) {
		v := types.ServiceVolumeConfig{Type: string(m.Type), Target: m.Destination, ReadOnly: !m.RW}
		switch m.Type {
		case mount.TypeBind:
			v.Source = g.inDir(m.Source)
		case mount.TypeVolume:
			if _, anonymous := g.Volumes[m.Name][labelAnonymous]; !anonymous {
				v.Source = g.volume(m.Name)
			}
		default:
			continue // tmpfs are told by the configuration
		}
		s.Volumes = append(s.Volumes, v)
	}
}

// labelAnonymous marks volumes without a name of their own.
const labelAnonymous = "com.docker.volume.anonymous"

// inDir writes a path of the host relative to the project's folder if it lies in it.
func (g *generator) inDir(path string) string {
	if g.Dir == "" {
		return path
	}
	rel, err := filepath.Rel(g.Dir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return "./" + filepath.ToSlash(rel)
}

// volume adds a volume to the project and returns its key.
func (g *generator) volume(name string) string {
	labels := g.Volumes[name]
	if key := labels[LabelVolume]; key != "" && g.ours(labels) {
		g.p.Volumes[key] = types.VolumeConfig{}
		return key
	}
	g.p.Volumes[name] = types.VolumeConfig{Name: name, External: true}
	return name
}

func (g *generator) ours(labels map[string]string) bool {
	return g.Project != "" && labels[LabelProject] == g.Project
}

// networks takes over the networks that a container is in.
func (g *generator) networks(s *types.ServiceConfig, c container.InspectResponse) {
	if mode := c.HostConfig.NetworkMode; mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		s.NetworkMode = string(mode)
		return
	}
	if c.NetworkSettings == nil {
		return
	}
	for name, end := range c.NetworkSettings.Networks {
		if name == network.NetworkBridge {
			s.NetworkMode = network.NetworkBridge // the engine's default network: it can be in no other
			continue
		}
		labels, key := g.Networks[name], name
		if own := labels[LabelNetwork]; own != "" && g.ours(labels) {
			key = own
			g.p.Networks[key] = types.NetworkConfig{}
		} else {
			g.p.Networks[key] = types.NetworkConfig{Name: name, External: true}
		}
		if s.Networks == nil {
			s.Networks = map[string]*types.ServiceNetworkConfig{}
		}
		s.Networks[key] = endpointOf(end, s.Name, strings.TrimPrefix(c.Name, "/"), c.ID)
	}
	if len(s.Networks) > 0 {
		s.NetworkMode = ""
	}
}

// endpointOf takes over how a container is in a network; names that it has there anyway are left out.
func endpointOf(end *network.EndpointSettings, service, name, id string) *types.ServiceNetworkConfig {
	var n types.ServiceNetworkConfig
	for _, alias := range end.Aliases {
		if alias != service && alias != name && !strings.HasPrefix(id, alias) {
			n.Aliases = append(n.Aliases, alias)
		}
	}
	if c := end.IPAMConfig; c != nil {
		if c.IPv4Address.IsValid() {
			n.Ipv4Address = c.IPv4Address.String()
		}
		if c.IPv6Address.IsValid() {
			n.Ipv6Address = c.IPv6Address.String()
		}
	}
	if len(n.Aliases) == 0 && n.Ipv4Address == "" && n.Ipv6Address == "" {
		return nil
	}
	return &n
}

func portsOf(bindings network.PortMap) []types.ServicePortConfig {
	var ports []types.ServicePortConfig
	for port, bound := range bindings {
		for _, b := range bound {
			p := types.ServicePortConfig{Target: uint32(port.Num()), Protocol: string(port.Proto()), Published: b.HostPort}
			if b.HostIP.IsValid() && !b.HostIP.IsUnspecified() {
				p.HostIP = b.HostIP.String()
			}
			ports = append(ports, p)
		}
	}
	slices.SortFunc(ports, func(a, b types.ServicePortConfig) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostIP, b.HostIP), cmp.Compare(a.Published, b.Published))
	})
	return slices.CompactFunc(ports, func(a, b types.ServicePortConfig) bool {
		return a.Target == b.Target && a.Protocol == b.Protocol && a.HostIP == b.HostIP && a.Published == b.Published
	})
}

// ownLabels are those that neither the image nor a Compose tool gave.
func ownLabels(labels, image map[string]string) types.Labels {
	own := types.Labels{}
	for name, value := range labels {
		if strings.HasPrefix(name, "com.docker.compose.") || strings.HasPrefix(name, "dev.compose.") || strings.HasPrefix(name, "desktop.docker.io") {
			continue
		}
		if from, ok := image[name]; !ok || from != value {
			own[name] = value
		}
	}
	return own
}

// ownVariables are those that the image does not have.
func ownVariables(env, image []string) types.MappingWithEquals {
	own := slices.DeleteFunc(slices.Clone(env), func(v string) bool { return slices.Contains(image, v) })
	return types.NewMappingWithEquals(own)
}

func unless(value, image string) string {
	if value == image {
		return ""
	}
	return value
}

func sameHealth(a, b *container.HealthConfig) bool {
	return b != nil && slices.Equal(a.Test, b.Test) && a.Interval == b.Interval && a.Timeout == b.Timeout &&
		a.StartPeriod == b.StartPeriod && a.StartInterval == b.StartInterval && a.Retries == b.Retries
}

func healthOf(h *container.HealthConfig) *types.HealthCheckConfig {
	d := func(v time.Duration) *types.Duration {
		if v == 0 {
			return nil
		}
		t := types.Duration(v)
		return &t
	}
	if len(h.Test) == 1 && h.Test[0] == "NONE" {
		return &types.HealthCheckConfig{Disable: true}
	}
	check := &types.HealthCheckConfig{
		Test: h.Test, Interval: d(h.Interval), Timeout: d(h.Timeout), StartPeriod: d(h.StartPeriod), StartInterval: d(h.StartInterval),
	}
	if h.Retries > 0 {
		n := uint64(h.Retries)
		check.Retries = &n
	}
	return check
}
