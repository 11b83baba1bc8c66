// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/seed71221737/dev/hostagent/network"
)

// hostsFile is the host's own table of names.
func hostsFile() string {
	if runtime.GOOS == "windows" {
		return os.Getenv("SystemRoot") + `\System32\drivers\etc\hosts`
	}
	return "/etc/hosts"
}

// resolver answers the guest's questions as the host would now: its hosts file first, with the user's own names above it, then its name servers. On Linux
// resolv.conf says which; macOS and Windows decide it by domain and network, so that their resolvers are asked themselves.
func (a *agent) resolver() network.Resolver {
	at := network.Plan(a.o.Subnet)
	file := hostsFile()
	names := &network.Names{Host: at.Host, Gateway: at.Gateway, Table: func() map[string][]netip.Addr {
		data, _ := os.ReadFile(file) // a host without one has no names
		table := network.ParseHosts(string(data))
		for name := range table {
			if strings.HasPrefix(name, "ip6-") || name == "localhost" || name == "broadcasthost" {
				delete(table, name) // everybody has their own
			}
		}
		maps.Copy(table, own(a.o.Hosts))
		return table
	}}
	if runtime.GOOS == "linux" {
		conf := &network.ResolvConf{File: "/etc/resolv.conf"}
		names.System, names.Search = conf, conf.Search
		return names
	}
	names.System = network.System{Resolver: &net.Resolver{}}
	return names
}

func own(hosts map[string]netip.Addr) map[string][]netip.Addr {
	table := map[string][]netip.Addr{}
	for name, addr := range hosts {
		table[strings.ToLower(strings.TrimSuffix(name, "."))] = []netip.Addr{addr}
	}
	return table
}
