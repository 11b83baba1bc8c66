// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package portholder

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Find finds a process of this network namespace that listens on the port (protocol tcp or udp) at an address that excludes addr. It needs the right
// to look at that process: root has it for all, a user for their own.
func Find(protocol string, addr netip.Addr, port uint16) (Process, bool) {
	var inodes []string
	for _, table := range []string{protocol, protocol + "6"} {
		f, err := os.Open("/proc/net/" + table)
		if err != nil {
			continue
		}
		for _, s := range parseSockets(f) {
			if s.listening(protocol) && s.local.Port() == port && overlaps(s.local.Addr(), addr) {
				inodes = append(inodes, s.inode)
			}
		}
		_ = f.Close()
	}
	if len(inodes) == 0 {
		return Process{}, false
	}
	return socketOwnerProcess(inodes)
}

// socket is one line of /proc/net/tcp and its like.
type socket struct {
	local netip.AddrPort
	state string
	inode string
}

// listening: TCP has a state for it (0A); a UDP socket is bound without a peer (07).
func (s socket) listening(protocol string) bool {
	if protocol == "udp" {
		return s.state == "07"
	}
	return s.state == "0A"
}

// overlaps reports whether two listeners at these addresses exclude each other. An invalid address is an unknown one.
func overlaps(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap()
	return !a.IsValid() || !b.IsValid() || a.IsUnspecified() || b.IsUnspecified() || a == b
}

// parseSockets reads a table of sockets as the kernel writes it; lines that it does not understand are left out.
func parseSockets(r io.Reader) []socket {
	var out []socket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		local, ok := parseSocketAddress(fields[1])
		if !ok {
			continue
		}
		out = append(out, socket{local: local, state: fields[3], inode: fields[9]})
	}
	return out
}

// parseSocketAddress reads ADDRESS:PORT in hexadecimal; the address is in 32-bit words in the byte order of the machine, which is little
// endian on all that dev supports.
func parseSocketAddress(s string) (netip.AddrPort, bool) {
	host, portText, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}

// socketOwnerProcess finds a process with one of the sockets open.
func socketOwnerProcess(inodes []string) (Process, bool) {
	links := make([]string, len(inodes))
	for i, inode := range inodes {
		links[i] = "socket:[" + inode + "]"
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return Process{}, false
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !slices.Contains(links, target) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		return Process{PID: pid, Name: strings.TrimSpace(string(name))}, true
	}
	return Process{}, false
}
