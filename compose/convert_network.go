// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// interfaceNameOption is the driver option by which the engine takes an interface's name.
const interfaceNameOption = "com.docker.network.endpoint.ifname"

// networks converts the networks a container is attached to, and what else has to do with names and addresses. All networks are given at
// creation, the one with the highest priority as the container's main one.
func (c conversion) networks(host *container.HostConfig) (*network.NetworkingConfig, error) {
	links := c.links()
	host.Links = links
	host.DNSSearch, host.DNSOptions = c.s.DNSSearch, c.s.DNSOpts
	host.ExtraHosts = c.s.ExtraHosts.AsList(":")
	slices.Sort(host.ExtraHosts)
	for _, text := range c.s.DNS {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, c.failf("dns", "%q is not an IP address", text)
		}
		host.DNS = append(host.DNS, addr)
	}
	if mode := c.s.NetworkMode; mode != "" {
		return c.bridgeAddress(mode)
	}
	keys := c.s.NetworksByPriority()
	if len(keys) == 0 {
		if _, ok := c.p.Networks["default"]; !ok {
			host.NetworkMode = network.NetworkNone
			return nil, nil
		}
		keys = []string{"default"}
	}
	endpoints := map[string]*network.EndpointSettings{}
	for i, key := range keys {
		e, err := c.endpoint(key, i == 0, links)
		if err != nil {
			return nil, err
		}
		endpoints[c.p.Networks[key].Name] = e
	}
	host.NetworkMode = container.NetworkMode(c.p.Networks[keys[0]].Name)
	return &network.NetworkingConfig{EndpointsConfig: endpoints}, nil
}

// bridgeAddress gives a container of the engine's default bridge its hardware address.
func (c conversion) bridgeAddress(mode string) (*network.NetworkingConfig, error) {
	if c.s.MacAddress == "" || mode != network.NetworkBridge && mode != network.NetworkDefault {
		return nil, nil
	}
	mac, err := net.ParseMAC(c.s.MacAddress)
	if err != nil {
		return nil, c.failf("mac_address", "%q is not a MAC address", c.s.MacAddress)
	}
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		mode: {MacAddress: network.HardwareAddr(mac)},
	}}, nil
}

// endpoint converts the attachment to one network.
func (c conversion) endpoint(key string, main bool, links []string) (*network.EndpointSettings, error) {
	config := c.s.Networks[key]
	e := &network.EndpointSettings{Aliases: c.aliases(config), Links: links}
	mac, macField := "", "networks."+key+".mac_address"
	if config != nil {
		mac = config.MacAddress
		e.GwPriority = config.GatewayPriority
		e.DriverOpts = endpointOptions(config)
		var err error
		if e.IPAMConfig, err = c.addresses(key, config); err != nil {
			return nil, err
		}
	}
	if main && c.s.MacAddress != "" {
		if mac != "" && mac != c.s.MacAddress {
			return nil, c.failf("mac_address", "differs from that of network %q", key)
		}
		mac, macField = c.s.MacAddress, "mac_address"
	}
	if mac != "" {
		addr, err := net.ParseMAC(mac)
		if err != nil {
			return nil, c.failf(macField, "%q is not a MAC address", mac)
		}
		e.MacAddress = network.HardwareAddr(addr)
	}
	return e, nil
}

// aliases are the names by which others on the network find the container. The engine adds its short ID.
func (c conversion) aliases(config *types.ServiceNetworkConfig) []string {
	aliases := []string{ContainerName(c.p, c.s, c.in.Number)}
	if c.in.OneOff != nil && !c.in.OneOff.UseAliases {
		return aliases
	}
	if config.ServiceNameAliasEnabled() {
		aliases = append(aliases, c.s.Name)
	}
	if config != nil {
		aliases = append(aliases, config.Aliases...)
	}
	return aliases
}

func endpointOptions(config *types.ServiceNetworkConfig) map[string]string {
	options := maps.Clone(map[string]string(config.DriverOpts))
	if config.InterfaceName != "" {
		if options == nil {
			options = map[string]string{}
		}
		options[interfaceNameOption] = config.InterfaceName
	}
	return options
}

// addresses converts the static addresses on one network; nil without any.
func (c conversion) addresses(key string, config *types.ServiceNetworkConfig) (*network.EndpointIPAMConfig, error) {
	var ipam network.EndpointIPAMConfig
	field := "networks." + key
	parse := func(name, text string) (addr netip.Addr, err error) {
		if text != "" {
			if addr, err = netip.ParseAddr(text); err != nil {
				err = c.failf(field+"."+name, "%q is not an IP address", text)
			}
		}
		return addr.Unmap(), err
	}
	var err4, err6, errLink error
	ipam.IPv4Address, err4 = parse("ipv4_address", config.Ipv4Address)
	ipam.IPv6Address, err6 = parse("ipv6_address", config.Ipv6Address)
	for _, text := range config.LinkLocalIPs {
		addr, err := parse("link_local_ips", text)
		if errLink = cmp.Or(errLink, err); addr.IsValid() {
			ipam.LinkLocalIPs = append(ipam.LinkLocalIPs, addr)
		}
	}
	if err := cmp.Or(err4, err6, errLink); err != nil {
		return nil, err
	}
	if !ipam.IPv4Address.IsValid() && !ipam.IPv6Address.IsValid() && len(ipam.LinkLocalIPs) == 0 {
		return nil, nil
	}
	return &ipam, nil
}

// links names the containers that links and external_links point to, each under the names by which it is to be found.
func (c conversion) links() []string {
	var links []string
	sep := separator(c.p)
	for _, link := range c.s.Links {
		service, alias, ok := strings.Cut(link, ":")
		if !ok {
			alias = service
		}
		for i, name := range c.linked(service) {
			short := fmt.Sprintf("%s%s%d", service, sep, i+1)
			links = append(links, name+":"+alias, name+":"+short, name+":"+c.p.Name+sep+short)
		}
	}
	for _, link := range c.s.ExternalLinks {
		name, alias, ok := strings.Cut(link, ":")
		if !ok {
			alias = name
		}
		links = append(links, name+":"+alias)
	}
	return links
}

// linked lists the names of a service's containers.
func (c conversion) linked(service string) []string {
	if names, ok := c.in.Replicas[service]; ok {
		return names
	}
	s := c.p.Services[service]
	var names []string
	for n := 1; n <= s.GetScale(); n++ {
		names = append(names, ContainerName(c.p, s, n))
	}
	return names
}

// NewNetworkSpec converts the project's network key to what the engine needs to create it.
func NewNetworkSpec(p *types.Project, key string) (NetworkSpec, error) {
	n, ok := p.Networks[key]
	if !ok {
		return NetworkSpec{}, fmt.Errorf("no network %q in project %q", key, p.Name)
	}
	if n.External {
		return NetworkSpec{}, fmt.Errorf("network %q is external: it is not ours to create", key)
	}
	hash, err := NetworkHash(n)
	if err != nil {
		return NetworkSpec{}, err
	}
	ipam, err := newIPAM(key, n.Ipam)
	if err != nil {
		return NetworkSpec{}, located(p, err)
	}
	labels := resourceLabels(p, n.Labels)
	labels[LabelNetwork], labels[LabelConfigHash] = key, hash
	return NetworkSpec{
		Name:       n.Name,
		Driver:     n.Driver,
		Options:    n.DriverOpts,
		IPAM:       ipam,
		Internal:   n.Internal,
		Attachable: n.Attachable,
		EnableIPv4: n.EnableIPv4,
		EnableIPv6: n.EnableIPv6,
		Labels:     labels,
	}, nil
}

// resourceLabels are the labels of a network or volume: its own and those of its project.
func resourceLabels(p *types.Project, own types.Labels) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, own)
	labels[LabelProject], labels[LabelVersion] = p.Name, labelVersion
	return labels
}

// newIPAM converts the address management of the network key; nil leaves it all to the engine.
func newIPAM(key string, config types.IPAMConfig) (*network.IPAM, error) {
	if config.Driver == "" && len(config.Config) == 0 && len(config.Options) == 0 {
		return nil, nil
	}
	ipam := &network.IPAM{Driver: config.Driver, Options: config.Options}
	for i, pool := range config.Config {
		if pool == nil {
			continue
		}
		p := poolParser{field: fmt.Sprintf("networks.%s.ipam.config.%d", key, i)}
		converted := network.IPAMConfig{
			Subnet:  p.prefix("subnet", pool.Subnet),
			IPRange: p.prefix("ip_range", pool.IPRange),
			Gateway: p.addr("gateway", pool.Gateway),
		}
		for _, name := range slices.Sorted(maps.Keys(pool.AuxiliaryAddresses)) {
			if converted.AuxAddress == nil {
				converted.AuxAddress = map[string]netip.Addr{}
			}
			converted.AuxAddress[name] = p.addr("aux_addresses."+name, pool.AuxiliaryAddresses[name])
		}
		if p.err != nil {
			return nil, p.err
		}
		ipam.Config = append(ipam.Config, converted)
	}
	return ipam, nil
}

// poolParser parses the addresses of one pool and remembers the first error.
type poolParser struct {
	field string
	err   error
}

func (p *poolParser) fail(name, text, want string) {
	if p.err == nil {
		p.err = &FieldError{Field: p.field + "." + name, Err: fmt.Errorf("%q is not %s", text, want)}
	}
}

func (p *poolParser) prefix(name, text string) netip.Prefix {
	if text == "" {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		p.fail(name, text, "a subnet in the form 172.28.0.0/16")
	}
	return prefix
}

func (p *poolParser) addr(name, text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		p.fail(name, text, "an IP address")
	}
	return addr
}
