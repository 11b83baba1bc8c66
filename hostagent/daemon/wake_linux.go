// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// watchWake tells when the host's clock has jumped, which it does when the host wakes: a timer that the kernel cancels then. It costs nothing meanwhile.
func watchWake(ctx context.Context, woken chan<- struct{}) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		pollWake(ctx, woken)
		return
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	defer f.Close()
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	buf := make([]byte, 8)
	for {
		raw, err := f.SyscallConn()
		if err != nil {
			return
		}
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
		}); err != nil || failed != nil && !errors.Is(failed, unix.ECANCELED) {
			return
		}
		if _, err := f.Read(buf); !errors.Is(err, unix.ECANCELED) {
			return
		}
		signal(woken)
	}
}
