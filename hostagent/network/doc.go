// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package network is a machine's network, in this process: a TCP/IP stack (gVisor's) behind the link endpoint of gvisor-tap-vsock.
//
// It needs no rights and changes nothing on the host: no routes, no interfaces, nothing for a VPN to clash with. The guest's connections out end here
// and go on as connections of this process (NAT on layer 4), and connections to the guest start here, by Dial. Its parties have fixed addresses, see
// Addresses. Names are answered by a DNS server on the gateway that asks a Resolver each time.
//
// The network is IPv4 inside. What the host serves to others on IPv6 reaches the guest all the same, because each connection is made anew here.
package network
