// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// owner is what it says: UID:GID:MODE:RDEV, MODE octal with its type bits.
type owner struct {
	uid, gid, mode, rdev uint32
}

func (o owner) String() string { return fmt.Sprintf("%d:%d:%o:%d", o.uid, o.gid, o.mode, o.rdev) }

// parseOwner reads it; what is malformed is not there.
func parseOwner(s string) (o owner, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 4 {
		return owner{}, false
	}
	for i, p := range []*uint32{&o.uid, &o.gid, &o.mode, &o.rdev} {
		base := 10
		if i == 2 {
			base = 8
		}
		n, err := strconv.ParseUint(parts[i], base, 32)
		if err != nil {
			return owner{}, false
		}
		*p = uint32(n)
	}
	return o, true
}

// apply replaces owner and mode by those that were set in the machine. A regular file may stand for a special one.
func (o owner) apply(a *wire.Attr) {
	a.UID, a.GID = o.uid, o.gid
	host, kept := a.Mode&wire.TypeMask, o.mode&wire.TypeMask
	if host == kept || host == wire.TypeRegular && kept != wire.TypeFolder && kept != wire.TypeSymlink {
		a.Mode, a.Rdev = o.mode, o.rdev
	}
}

// hostMode is the mode that a file has on the host, where its owner's user must be able to use it.
func hostMode(mode uint32) uint32 {
	host := mode&0o777 | 0o600
	if mode&wire.TypeMask == wire.TypeFolder {
		host |= 0o700
	}
	return host
}

// withoutSUID is a mode as a write by somebody unprivileged leaves it.
func withoutSUID(mode uint32) uint32 {
	const suid, sgid, groupExec = 0o4000, 0o2000, 0o010
	mode &^= suid
	if mode&groupExec != 0 {
		mode &^= sgid
	}
	return mode
}

// wanted is what a request makes of a file's owner and mode.
func wanted(a wire.Attr, r *wire.Request) owner {
	want := owner{a.UID, a.GID, a.Mode, a.Rdev}
	if r.Valid&wire.SetUID != 0 {
		want.uid = r.OwnerUID
	}
	if r.Valid&wire.SetGID != 0 {
		want.gid = r.OwnerGID
	}
	if r.Valid&wire.SetMode != 0 {
		want.mode = a.Mode&wire.TypeMask | r.Mode&0o7777
	} else if r.Valid&wire.KillSUID != 0 {
		want.mode = withoutSUID(a.Mode)
	}
	return want
}

// aside keeps owners and modes of files by their identity, in a file that each change is added to.
type aside struct {
	mu   sync.Mutex
	all  map[uint64]owner
	name string
	log  *os.File // opened with the first change
}

// maxAside bounds how many are kept.
const maxAside = 1 << 18

// openAside reads what was kept in a file; "" keeps nothing over the end of this process. A line that was cut off is passed over.
func openAside(name string) (*aside, error) {
	a := &aside{all: map[uint64]owner{}, name: name}
	if name == "" {
		return a, nil
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read owners of files: %w", err)
	}
	lines := 0
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); lines++ {
		ident, rest, _ := strings.Cut(sc.Text(), " ")
		id, err := strconv.ParseUint(ident, 16, 64)
		if o, ok := parseOwner(rest); ok && err == nil {
			a.all[id] = o
		}
	}
	if lines > 2*len(a.all)+100 {
		return a, a.rewrite()
	}
	return a, nil
}

// rewrite writes the file anew, without what was replaced.
func (a *aside) rewrite() error {
	var b []byte
	for id, o := range a.all {
		b = fmt.Appendf(b, "%x %s\n", id, o)
	}
	return atomicfile.Write(a.name, b, 0o600)
}

func (a *aside) get(ident uint64) (owner, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.all[ident]
	return o, ok
}

func (a *aside) put(ident uint64, o owner) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all[ident] == o {
		return nil
	}
	if len(a.all) >= maxAside {
		clear(a.all)
	}
	a.all[ident] = o
	if a.name == "" {
		return nil
	}
	if a.log == nil {
		f, err := os.OpenFile(a.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		a.log = f
	}
	_, err := fmt.Fprintf(a.log, "%x %s\n", ident, o)
	return err
}

func (a *aside) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.log == nil {
		return nil
	}
	return a.log.Close()
}
