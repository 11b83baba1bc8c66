// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Firewall is the program that dockerd makes its packet filter rules with.
type Firewall string

// The firewalls; FirewallAuto is a setting and never a choice.
const (
	FirewallAuto     Firewall = "auto"
	FirewallNftables Firewall = "nftables"
	FirewallIptables Firewall = "iptables"
)

// firewallFacts is what the host has.
type firewallFacts struct {
	nft      error // why nftables cannot be used; nil: it can
	iptables error // why iptables cannot be used; nil: it can
	// chains are the base chains that nft lists, rules made with iptables-nft
	// included.
	chains []baseChain
	// legacyDrop: the kernel's older iptables drop forwarded packets.
	legacyDrop bool
}

// baseChain is an nftables chain that the kernel calls.
type baseChain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Hook   string `json:"hook"`
	Policy string `json:"policy"`
}

// MissingError says that the host lacks something the engine needs.
type MissingError struct {
	What string
	Fix  string
	Err  error
}

func (e *MissingError) Error() string {
	if e.Err == nil {
		return "the engine needs " + e.What
	}
	return fmt.Sprintf("the engine needs %s: %v", e.What, e.Err)
}

func (e *MissingError) Unwrap() error { return e.Err }

// Hint names the fix.
func (e *MissingError) Hint() string { return e.Fix }

const installFirewall = "install one of them, such as `apt-get install nftables`"

// chooseFirewall picks the backend. nftables needs one program start per
// change where iptables needs many, so it is preferred; but a host whose
// iptables drop forwarded packets by default (ufw, another Docker) would drop
// what nftables accepts, and only rules made with iptables help there.
func chooseFirewall(want Firewall, f firewallFacts) (Firewall, error) {
	switch {
	case want == FirewallNftables && f.nft != nil:
		return "", &MissingError{What: "nftables, which engine.firewall asks for", Fix: "install it, such as `apt-get install nftables`", Err: f.nft}
	case want == FirewallIptables && f.iptables != nil:
		return "", &MissingError{What: "iptables, which engine.firewall asks for", Fix: "install it, such as `apt-get install iptables`", Err: f.iptables}
	case want == FirewallNftables, want == FirewallIptables:
		return want, nil
	case f.nft != nil && f.iptables != nil:
		return "", &MissingError{What: "nftables or iptables", Fix: installFirewall, Err: fmt.Errorf("%w; %w", f.nft, f.iptables)}
	case f.nft != nil:
		return FirewallIptables, nil //nolint:nilerr // without nftables the other serves
	case f.iptables == nil && f.iptablesDrop():
		return FirewallIptables, nil
	}
	return FirewallNftables, nil
}

// iptablesDrop says that forwarded packets are dropped unless an iptables rule
// accepts them.
func (f firewallFacts) iptablesDrop() bool {
	return f.legacyDrop || slices.ContainsFunc(f.chains, func(c baseChain) bool {
		return c.Hook == "forward" && c.Policy == "drop" && c.isIptables()
	})
}

// isIptables says that a chain is one that iptables-nft shows.
func (c baseChain) isIptables() bool {
	return (c.Family == "ip" || c.Family == "ip6") && c.Table == "filter" && c.Name == "FORWARD"
}

// warnings names what will keep containers from the network although the
// engine runs.
func (f firewallFacts) warnings(chosen Firewall) []string {
	var list []string
	for _, c := range f.chains {
		if c.Hook != "forward" || c.Policy != "drop" || c.isIptables() && chosen == FirewallIptables {
			continue
		}
		list = append(list, fmt.Sprintf("the host's firewall drops forwarded packets (chain %q of table %q %q): "+
			"containers reach the network only if it accepts their bridges (docker0, br-*)", c.Name, c.Family, c.Table))
	}
	return list
}

// parseChains reads the output of `nft -j list chains`.
func parseChains(data []byte) ([]baseChain, error) {
	var out struct {
		Nftables []struct {
			Chain *baseChain `json:"chain"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("read the list of nftables chains: %w", err)
	}
	var chains []baseChain
	for _, item := range out.Nftables {
		if item.Chain != nil && item.Chain.Hook != "" {
			chains = append(chains, *item.Chain)
		}
	}
	return chains, nil
}

// guardTable is the nftables table of our own that replaces what dockerd does
// only with iptables: a host that did not forward packets before does not
// become a router between its other networks because containers need
// forwarding.
const guardTable = "dev-forward-guard"

// guardRules drops forwarded packets that neither come from nor go to a bridge
// or a pair of virtual devices: the engine's own, and those of other tools for
// containers and virtual machines. What is left are the host's networks and
// its VPNs.
const guardRules = `table inet ` + guardTable + `
delete table inet ` + guardTable + `
table inet ` + guardTable + ` {
	chain forward {
		type filter hook forward priority filter; policy accept;
		meta iifkind { "bridge", "veth" } accept
		meta oifkind { "bridge", "veth" } accept
		ct state established,related accept
		drop
	}
}
`
