// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// toolTimeout bounds the firewall programs we ask: they answer in
// milliseconds unless something is wrong.
const toolTimeout = 10 * time.Second

// tool runs a program of the host and returns its standard output.
func tool(ctx context.Context, stdin string, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		line, _, _ := strings.Cut(strings.TrimSpace(diag.String()), "\n")
		return nil, fmt.Errorf("%s: %w: %s", name, err, line)
	}
	return out.Bytes(), nil
}

// nftProbe asks the kernel, without changing anything, for what dockerd's
// rules are made of.
const nftProbe = `table ip dev-probe
delete table ip dev-probe
table ip dev-probe {
	map jumps { type ifname : verdict; }
	chain nat { type nat hook postrouting priority srcnat; policy accept; oifname != "lo" masquerade; }
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname vmap @jumps
		ct state established,related counter accept
	}
}
`

// observeFirewall finds out what the host has.
func observeFirewall(ctx context.Context) firewallFacts {
	var f firewallFacts
	var wg sync.WaitGroup
	wg.Go(func() { _, f.nft = tool(ctx, nftProbe, "nft", "-c", "-f", "-") })
	wg.Go(func() { _, f.iptables = tool(ctx, "", "iptables", "-w", "-t", "nat", "-S", "POSTROUTING") })
	wg.Go(func() {
		// without nft the list stays empty: iptables is then the only choice
		if data, err := tool(ctx, "", "nft", "-j", "list", "chains"); err == nil {
			f.chains, _ = parseChains(data)
		}
	})
	wg.Go(func() { f.legacyDrop = legacyDrop(ctx) })
	wg.Wait()
	return f
}

// observeFirewallSoon begins to find out; the result waits for it.
func observeFirewallSoon(ctx context.Context) func() firewallFacts {
	facts := make(chan firewallFacts, 1)
	go func() { facts <- observeFirewall(ctx) }() // ends within toolTimeout
	return func() firewallFacts { return <-facts }
}

// legacyDrop asks the kernel's older iptables, if they are in use.
func legacyDrop(ctx context.Context) bool {
	names, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil || !strings.Contains(string(names), "filter") {
		return false
	}
	out, err := tool(ctx, "", "iptables-legacy", "-w", "-S", "FORWARD")
	return err == nil && strings.Contains(string(out), "-P FORWARD DROP")
}

// observeRoutes reads the IPv4 routes of all tables but the local one.
func observeRoutes() ([]route, error) {
	devices, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	names := map[uint32]string{}
	for _, d := range devices {
		names[uint32(d.Index)] = d.Name
	}
	dump, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	var routes []route
	for _, m := range messages {
		if r, ok := parseRoute(m, names); ok {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

func parseRoute(m syscall.NetlinkMessage, names map[uint32]string) (route, bool) {
	if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
		return route{}, false
	}
	bits, table := int(m.Data[1]), m.Data[4] // struct rtmsg: dst_len, table
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil || table == unix.RT_TABLE_LOCAL {
		return route{}, false
	}
	var r route
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.RTA_DST:
			if addr, ok := netip.AddrFromSlice(a.Value); ok {
				r.prefix = netip.PrefixFrom(addr, bits)
			}
		case unix.RTA_OIF:
			if len(a.Value) >= 4 {
				r.device = names[binary.NativeEndian.Uint32(a.Value)]
			}
		}
	}
	return r, r.prefix.IsValid() // a default route has no destination
}

// defaultGroup may use the socket when the host has it and the settings name
// no other.
const defaultGroup = "docker"

// socketGroup is the group for the socket, empty when there is none.
func socketGroup(s Settings) (string, error) {
	if s.SocketGroup != "" {
		if _, err := user.LookupGroup(s.SocketGroup); err != nil {
			return "", &MissingError{What: fmt.Sprintf("group %q, which engine.socket-group names", s.SocketGroup), Fix: "groupadd " + s.SocketGroup, Err: err}
		}
		return s.SocketGroup, nil
	}
	if _, err := user.LookupGroup(defaultGroup); err != nil {
		return "root", nil //nolint:nilerr // dockerd's own default is "docker", and a warning when it is missing
	}
	return defaultGroup, nil
}

// checkKernel names what the running kernel or system lacks.
func checkKernel() error {
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			return &MissingError{What: ns + " namespaces in the kernel", Fix: "boot a kernel of your distribution", Err: err}
		}
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return &MissingError{What: "/proc", Fix: "mount -t proc proc /proc", Err: err}
	}
	if !strings.Contains(string(filesystems), "\toverlay\n") && !moduleExists("overlay") {
		return &MissingError{What: "the overlay file system", Fix: "modprobe overlay, or boot a kernel that has it"}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return &MissingError{What: "/proc", Fix: "mount -t proc proc /proc", Err: err}
	}
	if !strings.Contains(string(mounts), " - cgroup2 ") && !strings.Contains(string(mounts), " - cgroup ") {
		return &MissingError{What: "control groups", Fix: "mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
	}
	return nil
}

// moduleExists says that the running kernel can load a module.
func moduleExists(name string) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	release := unix.ByteSliceToString(u.Release[:])
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		data, err := os.ReadFile("/lib/modules/" + release + "/" + list)
		if err == nil && strings.Contains(string(data), "/"+name+".ko") {
			return true
		}
	}
	return false
}

// enableForwarding does what dockerd does itself only with iptables: packets
// of containers are forwarded. A host that forwarded nothing before gets a
// guard, so that it does not become a router for others; a warning says when
// there cannot be one.
func enableForwarding(ctx context.Context) (warnings []string, err error) {
	changed, err := setSysctl("net/ipv4/ip_forward", "1")
	if err != nil {
		return nil, err
	}
	changed6, err := enableForwarding6()
	if err != nil || !changed && !changed6 {
		return nil, err
	}
	if _, err := tool(ctx, guardRules, "nft", "-f", "-"); err != nil {
		return []string{fmt.Sprintf("this machine forwards packets between all its networks now, as no guard could be set: %v", err)}, nil
	}
	return nil, nil
}

// enableForwarding6 keeps what router advertisements gave: a host that
// forwards ignores them unless told otherwise.
func enableForwarding6() (bool, error) {
	const conf = "/proc/sys/net/ipv6/conf"
	entries, err := os.ReadDir(conf)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // no IPv6
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		name := conf + "/" + e.Name() + "/accept_ra"
		if value, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(value)) == "1" {
			if err := os.WriteFile(name, []byte("2"), 0); err != nil {
				return false, fmt.Errorf("keep router advertisements: %w", err)
			}
		}
	}
	changed, err := setSysctl("net/ipv6/conf/default/forwarding", "1")
	if err != nil {
		return false, err
	}
	changedAll, err := setSysctl("net/ipv6/conf/all/forwarding", "1")
	return changed || changedAll, err
}

// setSysctl sets a kernel parameter and says whether it was another before.
func setSysctl(name, value string) (changed bool, err error) {
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read kernel parameter: %w", err)
	}
	if strings.TrimSpace(string(old)) == value {
		return false, nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return false, fmt.Errorf("set kernel parameter %s=%s: %w", strings.ReplaceAll(name, "/", "."), value, err)
	}
	return true, nil
}

// CheckAlone fails with an *OtherEngineError when a dockerd that is not ours
// runs in this network namespace: two of them fight over docker0 and the
// firewall's tables.
func CheckAlone(p Paths) error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("look for another engine: %w", err)
	}
	all, err := processesUnder("")
	if err != nil {
		return err
	}
	for _, other := range all {
		if filepath.Base(other.exe) != "dockerd" || isComponent(p, other) {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", other.pid)); err == nil && ns == own {
			return &OtherEngineError{PID: other.pid, Path: other.exe}
		}
	}
	return nil
}
