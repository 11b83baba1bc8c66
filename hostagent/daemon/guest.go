// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/seed71221737/dev/hostagent/network"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// guestNetwork is the guest's fixed configuration.
func guestNetwork(at network.Addresses) proto.Network {
	return proto.Network{
		Address: netip.PrefixFrom(at.Guest, at.Subnet.Bits()), Gateway: at.Gateway, DNS: []netip.Addr{at.Gateway}, MTU: mtu,
	}
}

// guestSysctl lets the engine publish ports at addresses of the host's, which the guest does not have.
func guestSysctl() map[string]string {
	return map[string]string{"net.ipv4.ip_nonlocal_bind": "1", "net.ipv6.ip_nonlocal_bind": "1"}
}

// guestEngine makes the containers' networks as wide as the guest's: a narrower one would cut packets in the middle of the way.
func guestEngine() map[string]json.RawMessage {
	size := strconv.Itoa(mtu)
	networks, _ := json.Marshal(map[string]any{"bridge": map[string]string{"com.docker.network.driver.mtu": size}}) // cannot fail
	return map[string]json.RawMessage{"mtu": json.RawMessage(size), "default-network-opts": networks}
}

// guestScript makes what containers publish on the guest's loopback reachable for this side and nobody else: connections from the dialer's address to
// the loopback's stand-in go to 127.0.0.1. It can be repeated.
func guestScript(at network.Addresses) string {
	return fmt.Sprintf(`set -e
nft -f - <<'RULES'
table ip dev-host {}
flush table ip dev-host
table ip dev-host {
	chain loopback {
		type nat hook prerouting priority -110;
		ip saddr %[1]s ip daddr %[2]s dnat to 127.0.0.1
	}
}
RULES
for f in /proc/sys/net/ipv4/conf/e*/route_localnet; do echo 1 > $f; done
`, at.Dialer, at.Loopback)
}

// addressScript gives the guest addresses of the host's, at which containers publish ports, or takes them away: the engine's listeners answer at no others.
// Meanwhile the guest cannot reach the host by these; host.docker.internal stays.
func addressScript(add, remove []netip.Addr) string {
	var b strings.Builder
	for _, a := range remove {
		fmt.Fprintf(&b, "ip route del local %s dev lo table local 2>/dev/null || true\n", a)
	}
	for _, a := range add {
		fmt.Fprintf(&b, "ip route replace local %s dev lo table local\n", a)
	}
	return b.String()
}

// proxyNames are the settings that are handed on.
var proxyNames = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"}

// guestProxy is the host's proxy settings as the guest is to use them: a proxy on the host's loopback is reached through the host's address, and what is
// in the machine's own network needs none.
func guestProxy(env []string, at network.Addresses) map[string]string {
	have := map[string]string{}
	for _, kv := range env {
		if name, value, ok := strings.Cut(kv, "="); ok && value != "" {
			upper := strings.ToUpper(name)
			if name == upper || have[upper] == "" {
				have[upper] = value
			}
		}
	}
	out := map[string]string{}
	for _, name := range proxyNames {
		if v := have[name]; v != "" && name != "NO_PROXY" {
			out[name] = reachableProxy(v, at.Host)
		}
	}
	if len(out) == 0 {
		return nil
	}
	without := []string{"localhost", "127.0.0.0/8", "::1", at.Subnet.String(), "host.docker.internal", "gateway.docker.internal"}
	if v := have["NO_PROXY"]; v != "" {
		without = append(without, v)
	}
	out["NO_PROXY"] = strings.Join(without, ",")
	return out
}

// reachableProxy replaces the loopback in a proxy's address; what is no URL stays as it is.
func reachableProxy(value string, host netip.Addr) string {
	text := value
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return value
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
		return value
	}
	at := host.String()
	if port := u.Port(); port != "" {
		at += ":" + port
	}
	u.Host = at
	return u.String()
}
