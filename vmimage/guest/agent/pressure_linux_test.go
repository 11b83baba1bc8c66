// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// pair is a connection on which urgent data plays the kernel's event.
func pair(t *testing.T) (fd int, urge func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(dial) })
	port := l.Addr().(*net.TCPAddr).Port
	if err := unix.Connect(dial, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); f.Close() })
	return int(f.Fd()), func() {
		if err := unix.Sendto(dial, []byte{1}, unix.MSG_OOB, nil); err != nil {
			t.Error(err)
		}
	}
}

func TestAwaitEvent(t *testing.T) {
	fd, urge := pair(t)
	if short, err := awaitEvent(t.Context(), fd, time.Millisecond); short || err != nil {
		t.Errorf("nothing happens: %v, %v", short, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := awaitEvent(ctx, fd, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	urge()
	if short, err := awaitEvent(t.Context(), fd, time.Hour); !short || err != nil {
		t.Errorf("an event: %v, %v", short, err)
	}
}

func TestPressure(t *testing.T) {
	got, err := pressure(t.Context(), memoryStalls, time.Millisecond)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("this kernel keeps no account: %v", err)
	}
	if p, ok := got.(proto.Pressure); err != nil || !ok || p.Memory.Total <= 0 || p.Memory.Available <= 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := pressure(t.Context(), "/proc/none", time.Hour); err == nil {
		t.Error("no account is no error")
	}
}
