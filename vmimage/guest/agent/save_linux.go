// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// BeforeSave makes the machine's memory small and its disk consistent.
func BeforeSave() error {
	debug.FreeOSMemory()
	return dropCaches()
}

// AfterRestore gives a restored machine the present time and randomness of its own (two restores of one state must not draw the same keys), ends the
// connections of its earlier life, and has renew do what its new seed says. It can be repeated.
func AfterRestore(p proto.AfterRestore, renew func(*proto.Seed) (warnings []string, err error)) (proto.AfterRestored, error) {
	var done proto.AfterRestored
	warn := func(err error) {
		if err != nil {
			done.Warnings = append(done.Warnings, err.Error())
		}
	}
	if err := setClock(p.Time); err != nil {
		return done, err
	}
	warn(setHardwareClock(p.Time))
	if len(p.Entropy) > 0 {
		if err := reseed(p.Entropy); err != nil {
			return done, err
		}
	}
	warn(endForeignConnections())
	if p.Seed == nil {
		return done, nil
	}
	warnings, err := renew(p.Seed)
	done.Warnings = append(done.Warnings, warnings...)
	return done, err
}

// reseed mixes bytes into the kernel's pool, credits them, and makes the generator use them at once.
func reseed(entropy []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("renew randomness: %w", err)
	}
	defer f.Close()
	// struct rand_pool_info: bits, bytes, and the bytes themselves, in whole words.
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(entropy)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))
	info = append(info, entropy...)
	info = append(info, make([]byte, 4)...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("renew randomness: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return fmt.Errorf("renew randomness: %w", errno)
	}
	return nil
}

// setHardwareClock sets the machine's own clock, from which a kernel that starts again takes the time. A machine without one is fine.
func setHardwareClock(t time.Time) error {
	f, err := os.OpenFile("/dev/rtc0", os.O_WRONLY, 0)
	if err != nil {
		return nil // there is none
	}
	defer f.Close()
	t = t.UTC()
	rtc := unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900,
	}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &rtc); err != nil {
		return fmt.Errorf("set the hardware clock: %w", err)
	}
	return nil
}
