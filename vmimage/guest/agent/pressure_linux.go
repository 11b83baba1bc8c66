// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	// memoryStalls is the kernel's account of how long processes waited for memory.
	memoryStalls = "/proc/pressure/memory"
	// longestWait bounds one request, so that a host that is gone is not waited for.
	longestWait = 10 * time.Minute
)

// stallTriggers have the kernel tell when some process waited for a tenth of the time, in µs: what has to be read again from disk counts. The second is
// for who has not all rights.
var stallTriggers = []string{"some 50000 500000", "some 200000 2000000"}

// pressure waits until memory is short, or the time is over, or ctx ends. It takes no processor time meanwhile. A kernel that keeps no account is an error:
// whoever wants to take memory away must know.
func pressure(ctx context.Context, file string, wait time.Duration) (any, error) {
	f, err := os.OpenFile(file, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	defer f.Close()
	for _, trigger := range stallTriggers {
		if _, err = unix.Write(int(f.Fd()), append([]byte(trigger), 0)); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	short, err := awaitEvent(ctx, int(f.Fd()), min(wait, longestWait))
	if err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	m, err := readMemory()
	if err != nil {
		return nil, err
	}
	return proto.Pressure{Short: short, Memory: m}, nil
}

// awaitEvent waits for an exceptional event at fd: true; the end of the time: false; or of ctx: its error.
func awaitEvent(ctx context.Context, fd int, wait time.Duration) (bool, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return false, err
	}
	defer unix.Close(wake)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // a counter: it cannot be full
	})
	defer func() {
		if !stop() {
			<-stopped // it writes to what is about to be closed
		}
	}()
	end := time.Now().Add(wait)
	for {
		left := max(time.Until(end), 0)
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(wake), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, err
		case ctx.Err() != nil:
			return false, ctx.Err()
		case n > 0 && fds[0].Revents&unix.POLLPRI != 0:
			return true, nil
		case n > 0 && fds[0].Revents != 0:
			return false, errors.New("the kernel ended the watch")
		case time.Until(end) <= 0:
			return false, nil
		}
	}
}
