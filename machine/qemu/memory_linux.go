// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/machine/saved"
)

// guestMemory is a guest's memory as a file without a name: QEMU maps it, and this process reads and writes it while the guest stands still. It is freed
// when both have let it go.
type guestMemory struct {
	*os.File
	size  int64
	close sync.Once
}

// Close lets the memory go, once.
func (m *guestMemory) Close() (err error) {
	m.close.Do(func() { err = m.File.Close() })
	return err
}

func newGuestMemory(mebibytes int) (*guestMemory, error) {
	fd, err := unix.MemfdCreate("dev-machine-memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the machine's memory: %w", err)
	}
	m := &guestMemory{File: os.NewFile(uintptr(fd), "memory"), size: int64(mebibytes) << 20}
	if err := m.Truncate(m.size); err != nil {
		return nil, errors.Join(fmt.Errorf("make the machine's memory: %w", err), m.Close())
	}
	return m, nil
}

// Extents are the parts that were ever written to and not given back.
func (m *guestMemory) Extents() ([]saved.Extent, error) {
	list := []saved.Extent{}
	for at := int64(0); at < m.size; {
		begin, err := unix.Seek(int(m.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("look for memory in use: %w", err)
		}
		end, err := unix.Seek(int(m.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("look for memory in use: %w", err)
		}
		list = append(list, saved.Extent{Begin: begin, End: end})
		at = end
	}
	return list, nil
}
