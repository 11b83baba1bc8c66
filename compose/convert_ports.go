// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"net/netip"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/network"
)

// exposed converts expose and the container's side of ports.
func (c conversion) exposed() (network.PortSet, error) {
	set := network.PortSet{}
	for i, text := range c.s.Expose {
		ports, err := network.ParsePortRange(text)
		if err != nil {
			return nil, c.failf(fmt.Sprintf("expose[%d]", i), "%q is neither a port nor a range of ports", text)
		}
		for port := range ports.All() {
			set[port] = struct{}{}
		}
	}
	for i, config := range c.s.Ports {
		port, err := c.port(i, config)
		if err != nil {
			return nil, err
		}
		set[port] = struct{}{}
	}
	return set, nil
}

// bindings converts ports: what each port of the container is published as. An empty host port lets the engine choose, a range
// lets it choose from the range.
func (c conversion) bindings() (network.PortMap, error) {
	bindings := network.PortMap{}
	for i, config := range c.s.Ports {
		port, err := c.port(i, config)
		if err != nil {
			return nil, err
		}
		binding := network.PortBinding{HostPort: config.Published}
		if config.HostIP != "" {
			if binding.HostIP, err = netip.ParseAddr(config.HostIP); err != nil {
				return nil, c.failf(indexed("ports", i, "host_ip"), "%q is not an IP address", config.HostIP)
			}
		}
		if config.Published != "" {
			if _, err := network.ParsePortRange(config.Published); err != nil {
				return nil, c.failf(indexed("ports", i, "published"), "%q is neither a port nor a range of ports", config.Published)
			}
		}
		bindings[port] = append(bindings[port], binding)
	}
	return bindings, nil
}

// port is the container's side of a published port.
func (c conversion) port(i int, config types.ServicePortConfig) (network.Port, error) {
	switch config.Protocol {
	case "", string(network.TCP), string(network.UDP), string(network.SCTP):
	default:
		return network.Port{}, c.failf(indexed("ports", i, "protocol"), "%q is not a protocol; tcp, udp and sctp are", config.Protocol)
	}
	port, err := network.ParsePort(fmt.Sprintf("%d/%s", config.Target, config.Protocol))
	if err != nil {
		return port, c.failf(indexed("ports", i, "target"), "%d is not a port", config.Target)
	}
	return port, nil
}
