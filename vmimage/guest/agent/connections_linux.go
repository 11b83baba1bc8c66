// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// networkNamespaces is where the engine keeps those of its containers.
const networkNamespaces = "/run/docker/netns/*"

// endForeignConnections ends the TCP connections, of the machine and of its containers, whose other end is outside of the machine: it was there in an
// earlier life, and who waits for it would wait for long. Connections between containers live on with both ends. The agent's own end by themselves.
func endForeignConnections() error {
	inside, err := insideNetworks()
	if err != nil {
		return fmt.Errorf("end old connections: %w", err)
	}
	errs := []error{endConnections(inside)}
	namespaces, _ := filepath.Glob(networkNamespaces)
	for _, ns := range namespaces {
		errs = append(errs, inNetwork(ns, func() error { return endConnections(inside) }))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end old connections: %w", err)
	}
	return nil
}

// insideNetworks are the networks that exist within the machine: those of all interfaces but its cards, and the machine's own addresses.
func insideNetworks() ([]*net.IPNet, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var inside []*net.IPNet
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone since
		}
		_, statErr := os.Stat(filepath.Join("/sys/class/net", i.Name, "device"))
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if card := statErr == nil; card {
				n = &net.IPNet{IP: n.IP, Mask: net.CIDRMask(8*len(n.IP), 8*len(n.IP))}
			}
			inside = append(inside, n)
		}
	}
	return inside, nil
}

// endConnections ends those of the thread's network whose other end is not in one of these networks.
func endConnections(inside []*net.IPNet) error {
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			errs = append(errs, fmt.Errorf("list connections of family %d: %w", family, err))
			continue
		}
		for _, s := range sockets {
			if foreign(s, inside) {
				errs = append(errs, destroy(s))
			}
		}
	}
	return errors.Join(errs...)
}

// foreign says whether a socket is a connection whose other end is outside, and not the agent's.
func foreign(s *netlink.Socket, inside []*net.IPNet) bool {
	const closed, listening = 7, 10
	to := s.ID.Destination
	switch {
	case s.State == closed || s.State == listening || to.IsUnspecified() || to.IsLoopback():
		return false
	case s.ID.SourcePort == proto.FastPort || s.ID.SourcePort == sshPort:
		return false
	}
	return !slices.ContainsFunc(inside, func(n *net.IPNet) bool { return n.Contains(to) })
}

// sshPort is the agent's.
const sshPort = 22

// destroy ends one socket: its program sees the connection fail, and the other end a reset. One that has ended since is no error.
func destroy(s *netlink.Socket) error {
	err := netlink.SocketDestroy(&net.TCPAddr{IP: s.ID.Source, Port: int(s.ID.SourcePort)}, &net.TCPAddr{IP: s.ID.Destination, Port: int(s.ID.DestinationPort)})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, netlink.ErrNotImplemented) { // the library knows IPv4 only, and the machine's network is nothing else
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the connection of port %d to %q: %w", s.ID.SourcePort, s.ID.Destination, err)
	}
	return nil
}

// inNetwork calls f on a thread in another network namespace; one that has gone is no error.
func inNetwork(path string, f func() error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // its container has ended
	}
	defer unix.Close(fd)
	return apart(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return nil //nolint:nilerr // left over from a container that has ended
		}
		return f()
	})
}
