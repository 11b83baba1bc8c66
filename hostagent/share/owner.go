// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
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

// aside keeps owners and modes of files by their identity, in a file that each change is added to: a line for each, of which the last one counts.
type aside struct {
	mu    sync.Mutex
	all   map[uint64]keptOwner
	next  uint64 // counts changes
	name  string
	log   *os.File // opened with the first change
	lines int      // in the file
}

type keptOwner struct {
	owner
	at uint64
}

const (
	// maxAside bounds how many are kept; then the oldest go.
	maxAside = 1 << 18
	// staleLines is how many lines that do not count any more may be in the file, besides as many as count.
	staleLines = 4096
	// noOwner stands in the file for one that is not kept any more.
	noOwner = "-"
)

// openAside reads what was kept in a file; "" keeps nothing over the end of this process. A line that was cut off, or that nobody understands, is passed over.
func openAside(name string) (*aside, error) {
	a := &aside{all: map[uint64]keptOwner{}, name: name}
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
	for line := range strings.Lines(string(data)) {
		a.lines++
		ident, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		id, err := strconv.ParseUint(ident, 16, 64)
		if err != nil || !strings.HasSuffix(line, "\n") {
			continue
		}
		if o, ok := parseOwner(rest); ok {
			a.setLocked(id, o)
		} else if rest == noOwner {
			delete(a.all, id)
		}
	}
	if a.lines != len(a.all) {
		return a, a.rewrite()
	}
	return a, nil
}

// setLocked keeps an owner in memory.
func (a *aside) setLocked(ident uint64, o owner) {
	if _, there := a.all[ident]; !there && len(a.all) >= maxAside {
		a.evictLocked()
	}
	a.next++
	a.all[ident] = keptOwner{o, a.next}
}

// evictLocked forgets the oldest quarter.
func (a *aside) evictLocked() {
	ages := make([]uint64, 0, len(a.all))
	for _, o := range a.all {
		ages = append(ages, o.at)
	}
	slices.Sort(ages)
	limit := ages[len(ages)/4]
	maps.DeleteFunc(a.all, func(_ uint64, o keptOwner) bool { return o.at < limit })
}

// rewrite writes the file anew, without what does not count any more, in the order of the changes.
func (a *aside) rewrite() error {
	var b []byte
	byAge := func(x, y uint64) int { return cmp.Compare(a.all[x].at, a.all[y].at) }
	for _, id := range slices.SortedFunc(maps.Keys(a.all), byAge) {
		b = fmt.Appendf(b, "%x %s\n", id, a.all[id].owner)
	}
	if a.log != nil { // it is the old file's
		_ = a.log.Close() // what it was told is in memory, too
		a.log = nil
	}
	a.lines = len(a.all)
	return atomicfile.Write(a.name, b, 0o600)
}

func (a *aside) get(ident uint64) (owner, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.all[ident]
	return o.owner, ok
}

func (a *aside) put(ident uint64, o owner) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, there := a.all[ident]; there && old.owner == o {
		return nil
	}
	a.setLocked(ident, o)
	return a.noteLocked(ident, o.String())
}

// drop forgets a file that is gone, or that keeps its owner itself. If that cannot be noted, an owner is kept of a file that there will not be again.
func (a *aside) drop(ident uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, there := a.all[ident]; there {
		delete(a.all, ident)
		_ = a.noteLocked(ident, noOwner)
	}
}

// noteLocked adds a line to the file.
func (a *aside) noteLocked(ident uint64, what string) error {
	if a.name == "" {
		return nil
	}
	if a.lines > 2*len(a.all)+staleLines {
		return a.rewrite()
	}
	if a.log == nil {
		f, err := os.OpenFile(a.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		a.log = f
	}
	a.lines++
	_, err := fmt.Fprintf(a.log, "%x %s\n", ident, what)
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
