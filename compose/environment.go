// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
)

// Environment is one of several copies of a project on one engine, and what it got so that it does not get into the others' way: host
// ports and subnets. The project is loaded under the environment's own name first, which sets all names apart that Compose makes up; what the
// Compose files pin is changed by [Environment.Apply].
type Environment struct {
	// Name sets the environment apart: it ends pinned names.
	Name string
	// Ports are the first host ports by [PortNeed.Key].
	Ports map[string]uint16
	// Subnets are the networks' address ranges by [SubnetNeed.Key].
	Subnets map[string]netip.Prefix
}

// PortNeed is a published port that every environment needs of its own: Count host ports in a row.
type PortNeed struct {
	Key      string // SERVICE/TARGET/PROTOCOL; a further one for the same target ends in #2
	Protocol string
	Count    int
}

// SubnetNeed is a pinned subnet that every environment needs of its own, of the same size.
type SubnetNeed struct {
	Key  string // the network's key; a further one of the same network ends in #2
	Like netip.Prefix
}

// Needs are what a project asks for that two environments cannot both have.
type Needs struct {
	Ports   []PortNeed
	Subnets []SubnetNeed
}

// NeedsOf lists what an environment of the project must be given, in a stable order; services of inactive profiles count, so that enabling one
// changes nothing for the others.
func NeedsOf(p *types.Project) Needs {
	var n Needs
	all := p.AllServices()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		keys := portKeys(name, all[name].Ports)
		for i, port := range all[name].Ports {
			first, last, ok := portRange(port.Published)
			if !ok || slices.ContainsFunc(n.Ports, func(have PortNeed) bool { return have.Key == keys[i] }) {
				continue
			}
			n.Ports = append(n.Ports, PortNeed{Key: keys[i], Protocol: protocolOf(port), Count: last - first + 1})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Networks)) {
		if p.Networks[key].External {
			continue
		}
		for i, pool := range p.Networks[key].Ipam.Config {
			if prefix, ok := pinnedSubnet(pool); ok {
				n.Subnets = append(n.Subnets, SubnetNeed{Key: numbered(key, i), Like: prefix})
			}
		}
	}
	return n
}

// pinnedSubnet is the subnet of a pool, if it has one that can be read.
func pinnedSubnet(pool *types.IPAMPool) (netip.Prefix, bool) {
	if pool == nil || pool.Subnet == "" {
		return netip.Prefix{}, false
	}
	prefix, err := netip.ParsePrefix(pool.Subnet)
	return prefix.Masked(), err == nil
}

// numbered is the key of the i-th of several, counted from 0.
func numbered(key string, i int) string {
	if i == 0 {
		return key
	}
	return fmt.Sprintf("%s#%d", key, i+1)
}

func protocolOf(p types.ServicePortConfig) string { return cmp.Or(p.Protocol, "tcp") }

// portKeys names each of a service's ports by what it leads to, whatever host port the files give it, so that the allocation stays when that is
// edited. The same host port on several addresses has one key.
func portKeys(service string, ports []types.ServicePortConfig) []string {
	keys := make([]string, len(ports))
	published := map[string][]string{} // by key without number: the host ports so far
	for i, p := range ports {
		key := fmt.Sprintf("%s/%d/%s", service, p.Target, protocolOf(p))
		at := slices.Index(published[key], p.Published)
		if at < 0 {
			at = len(published[key])
			published[key] = append(published[key], p.Published)
		}
		keys[i] = numbered(key, at)
	}
	return keys
}

// Apply returns the project as it is in the environment, and says in one line each what it does about what the files pin. The project given is not changed.
func (e Environment) Apply(p *types.Project) (*types.Project, []string) {
	a := &environmentChange{Environment: e, project: p.Name, containers: map[string]string{}, images: map[string]string{}}
	out := *p
	out.Networks = a.networks(p.Networks)
	out.Volumes = a.volumes(p.Volumes)
	all := p.AllServices()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a.collect(name, all[name])
	}
	out.Services, out.DisabledServices = a.services(p.Services), a.services(p.DisabledServices)
	return &out, a.notes
}

// environmentChange is one project being fitted into an environment.
type environmentChange struct {
	Environment
	project    string
	notes      []string
	moves      []subnetMove
	containers map[string]string // fixed container names, to the environment's
	images     map[string]string // names of images that are built here, to the environment's
}

// subnetMove is a range of addresses that another takes the place of.
type subnetMove struct{ from, to netip.Prefix }

func (a *environmentChange) note(format string, args ...any) {
	a.notes = append(a.notes, fmt.Sprintf(format, args...))
}

// own gives a pinned name the environment's ending, unless the name is the environment's own already because it was made of the project's.
func (a *environmentChange) own(name string) string {
	if strings.Contains(name, a.project) {
		return name
	}
	return name + "-" + a.Name
}

func (a *environmentChange) networks(all types.Networks) types.Networks {
	out := maps.Clone(all)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		n := all[key]
		if n.External {
			a.note("network %s is external: all environments share it", n.Name)
			continue
		}
		if name := a.own(n.Name); name != n.Name {
			a.note("network %s is %s here", n.Name, name)
			n.Name = name
		}
		n.Ipam.Config = a.pools(key, n.Ipam.Config)
		out[key] = n
	}
	return out
}

// pools moves the subnets of a network.
func (a *environmentChange) pools(key string, pools []*types.IPAMPool) []*types.IPAMPool {
	out := slices.Clone(pools)
	for i, pool := range pools {
		from, ok := pinnedSubnet(pool)
		to, given := a.Subnets[numbered(key, i)]
		if !ok || !given {
			continue
		}
		m := subnetMove{from, to}
		a.moves = append(a.moves, m)
		moved := *pool
		moved.Subnet, moved.Gateway, moved.IPRange = to.String(), m.address(pool.Gateway), m.prefix(pool.IPRange)
		moved.AuxiliaryAddresses = maps.Clone(pool.AuxiliaryAddresses)
		for name, address := range moved.AuxiliaryAddresses {
			moved.AuxiliaryAddresses[name] = m.address(address)
		}
		out[i] = &moved
		a.note("network %s has subnet %s here instead of %s; addresses that services have in it move along", key, to, from)
	}
	return out
}

// address moves an address that lies in the range; others stay.
func (m subnetMove) address(text string) string {
	addr, err := netip.ParseAddr(text)
	if err != nil || !m.from.Contains(addr) {
		return text
	}
	return m.move(addr).String()
}

func (m subnetMove) prefix(text string) string {
	p, err := netip.ParsePrefix(text)
	if err != nil || !m.from.Contains(p.Addr()) {
		return text
	}
	return netip.PrefixFrom(m.move(p.Addr()), p.Bits()).String()
}

// move replaces the network's bits of an address.
func (m subnetMove) move(addr netip.Addr) netip.Addr {
	host, network := addr.AsSlice(), m.to.Addr().AsSlice()
	for i := range host {
		bits := min(8, max(0, m.to.Bits()-8*i))
		mask := byte(0xff) << (8 - bits)
		host[i] = network[i]&mask | host[i]&^mask
	}
	moved, _ := netip.AddrFromSlice(host)
	return moved
}

func (a *environmentChange) volumes(all types.Volumes) types.Volumes {
	out := maps.Clone(all)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		v := all[key]
		if v.External {
			a.note("volume %s is external: all environments share its data", v.Name)
			continue
		}
		if name := a.own(v.Name); name != v.Name {
			a.note("volume %s is %s here", v.Name, name)
			v.Name = name
		}
		if device := v.DriverOpts["device"]; device != "" {
			a.note("volume %s keeps its data in %s: all environments share it", key, device)
		}
		out[key] = v
	}
	return out
}

// collect finds the names that other services may refer to.
func (a *environmentChange) collect(name string, s types.ServiceConfig) {
	if s.ContainerName != "" {
		if own := a.own(s.ContainerName); own != s.ContainerName {
			a.containers[s.ContainerName] = own
			a.note("service %s: its container %s is %s here", name, s.ContainerName, own)
		}
	}
	if s.Build != nil && s.Image != "" {
		if own := a.ownImage(s.Image); own != s.Image {
			a.images[s.Image] = own
			a.note("service %s: the image it builds, %s, is %s here", name, s.Image, own)
		}
	}
	if s.NetworkMode == "host" {
		a.note("service %s uses the host's network: its ports are the same in all environments", name)
	}
}

// ownImage gives an image's tag the environment's ending.
func (a *environmentChange) ownImage(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil || strings.Contains(image, a.project) {
		return image
	}
	if _, digested := named.(reference.Digested); digested {
		return image
	}
	tag := "latest"
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	tagged, err := reference.WithTag(reference.TrimNamed(named), tag+"-"+a.Name)
	if err != nil {
		return image
	}
	return reference.FamiliarString(tagged)
}

func (a *environmentChange) services(all types.Services) types.Services {
	out := maps.Clone(all)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out[name] = a.service(name, all[name])
	}
	return out
}

func (a *environmentChange) service(name string, s types.ServiceConfig) types.ServiceConfig {
	s.Ports = a.ports(name, s.Ports)
	s.ContainerName = renamed(a.containers, s.ContainerName)
	s.Image = renamed(a.images, s.Image)
	if s.Build != nil && len(s.Build.Tags) > 0 {
		build := *s.Build
		build.Tags = nil
		for _, tag := range s.Build.Tags {
			build.Tags = append(build.Tags, a.ownImage(tag))
		}
		s.Build = &build
	}
	for _, mode := range []*string{&s.NetworkMode, &s.Pid, &s.Ipc} {
		*mode = a.container(*mode)
	}
	s.VolumesFrom = mapped(s.VolumesFrom, a.container)
	s.ExternalLinks = mapped(s.ExternalLinks, func(link string) string {
		container, alias, ok := strings.Cut(link, ":")
		if own := renamed(a.containers, container); own != container {
			if !ok {
				alias = container
			}
			return own + ":" + alias
		}
		return link
	})
	a.addresses(&s)
	return s
}

// ports gives the service's ports the environment's host ports.
func (a *environmentChange) ports(service string, ports []types.ServicePortConfig) []types.ServicePortConfig {
	keys := portKeys(service, ports)
	out := slices.Clone(ports)
	for i, p := range ports {
		first, ok := a.Ports[keys[i]]
		from, to, published := portRange(p.Published)
		if !ok || !published {
			continue
		}
		out[i].Published = strconv.Itoa(int(first))
		if to > from {
			out[i].Published += "-" + strconv.Itoa(int(first)+to-from)
		}
		if out[i].Published != p.Published && slices.Index(keys, keys[i]) == i {
			a.note("service %s: port %d is published as %s here instead of %s", service, p.Target, out[i].Published, p.Published)
		}
	}
	return out
}

// container renames what is in container:NAME and container:NAME:ro.
func (a *environmentChange) container(text string) string {
	rest, ok := strings.CutPrefix(text, types.ContainerPrefix)
	if !ok {
		return text
	}
	name, mode, _ := strings.Cut(rest, ":")
	if mode != "" {
		mode = ":" + mode
	}
	return types.ContainerPrefix + renamed(a.containers, name) + mode
}

// addresses moves the addresses that the service has on networks and knows of others.
func (a *environmentChange) addresses(s *types.ServiceConfig) {
	move := func(text string) string {
		for _, m := range a.moves {
			if moved := m.address(text); moved != text {
				return moved
			}
		}
		return text
	}
	s.Networks = maps.Clone(s.Networks)
	for key, n := range s.Networks {
		if n != nil {
			moved := *n
			moved.Ipv4Address, moved.Ipv6Address = move(n.Ipv4Address), move(n.Ipv6Address)
			s.Networks[key] = &moved
		}
	}
	s.ExtraHosts = maps.Clone(s.ExtraHosts)
	for host, addresses := range s.ExtraHosts {
		s.ExtraHosts[host] = mapped(addresses, move)
	}
	s.DNS = mapped(s.DNS, move)
}

func renamed(names map[string]string, name string) string {
	if own, ok := names[name]; ok {
		return own
	}
	return name
}

// mapped is a new list with f of each item; nil stays nil.
func mapped(list []string, f func(string) string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, item := range list {
		out[i] = f(item)
	}
	return out
}

// portVariable starts the names of the variables that hold published ports.
const portVariable = "DEV_PORT_"

// PortVariables are the host ports that the project publishes, for scripts and for the Compose files themselves: DEV_PORT_web_80=8080. What is no letter
// or digit in a service's name is _; protocols other than tcp end the name; of a range it is the first port, of several for one target the later
// ones end in _2 and so on. Ports that the engine chooses are left out.
func PortVariables(p *types.Project) map[string]string {
	vars := map[string]string{}
	all := p.AllServices()
	for name, s := range all {
		for i, key := range portKeys(name, s.Ports) {
			if first, _, ok := portRange(s.Ports[i].Published); ok {
				vars[PortVariable(key)] = strconv.Itoa(first)
			}
		}
	}
	return vars
}

// PortVariable is the name of the variable for a [PortNeed.Key].
func PortVariable(key string) string {
	key, number, _ := strings.Cut(key, "#")
	key = strings.TrimSuffix(key, "/tcp")
	if number != "" {
		key += "_" + number
	}
	return portVariable + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, key)
}
