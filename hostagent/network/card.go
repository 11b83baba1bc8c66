// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/containers/gvisor-tap-vsock/pkg/tap"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// card is the wire between the stack and the VM's network card: one connection with frames on it, each after its length in 32 bits, the highest first, as
// QEMU's stream devices have it. There is one guest, so nothing has to be learned or switched.
type card struct {
	endpoint *tap.LinkEndpoint
	gateway  tcpip.LinkAddress

	conn           atomic.Pointer[wire] // the VM's; nil: none is attached
	writing        sync.Mutex
	sent, received atomic.Uint64 // by the stack, in bytes
}

type wire struct{ net.Conn }

// maxFrame bounds what a VM may send at once.
const maxFrame = 1 << 17

// DeliverNetworkPacket sends a frame of the stack's to the VM. Without a VM it is lost, as on a wire.
func (c *card) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	w := c.conn.Load()
	if w == nil {
		return
	}
	view := pkt.ToView()
	defer view.Release()
	frame := view.AsSlice()
	data := make([]byte, 4, 4+len(frame))
	binary.BigEndian.PutUint32(data, uint32(len(frame)))
	data = append(data, frame...)
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, err := w.Write(data); err != nil {
		c.detach(w) // half a frame may have gone out
		return
	}
	c.sent.Add(uint64(len(frame)))
}

func (c *card) detach(w *wire) {
	c.conn.CompareAndSwap(w, nil)
	_ = w.Close() // a second time does no harm
}

// serve gives the stack what the VM sends until the connection ends. A VM that is attached already is detached.
func (c *card) serve(conn net.Conn) error {
	w := &wire{conn}
	if old := c.conn.Swap(w); old != nil {
		_ = old.Close()
	}
	defer c.detach(w)
	r := bufio.NewReaderSize(conn, maxFrame)
	var size [4]byte
	for {
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return fmt.Errorf("read from the network card: %w", err)
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > maxFrame {
			return fmt.Errorf("read from the network card: a frame of %d bytes", n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return fmt.Errorf("read from the network card: %w", err)
		}
		c.received.Add(uint64(n))
		c.deliver(frame)
	}
}

func (c *card) deliver(frame []byte) {
	if len(frame) < header.EthernetMinimumSize {
		return
	}
	eth := header.Ethernet(frame)
	if to := eth.DestinationAddress(); to != c.gateway && to != header.EthernetBroadcastAddress {
		return
	}
	data := buffer.MakeWithData(frame)
	data.TrimFront(header.EthernetMinimumSize)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: data})
	defer pkt.DecRef()
	c.endpoint.DeliverNetworkPacket(eth.Type(), pkt)
}
