// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ram is a guest's memory in a test.
type ram struct {
	*bytes.Reader
	extents []Extent
}

func (r ram) Extents() ([]Extent, error) { return r.extents, nil }

// into is where a test restores memory to.
type into []byte

func (b into) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

const ramSize = 5*chunkSize + 3*pageSize

// someMemory has empty chunks, single pages, runs, and an end that is no whole chunk.
func someMemory() []byte {
	b := make([]byte, ramSize)
	fill := func(page, n int) {
		r := rand.New(rand.NewPCG(1, uint64(page)))
		for i := page * pageSize; i < (page+n)*pageSize; i++ {
			b[i] = byte(r.Uint32()) & 0x0f
		}
	}
	fill(0, 1)
	fill(3, 40)
	fill(255, 3)           // over the edge of a chunk
	fill(3*chunkPages, 20) // after an empty chunk
	fill(ramSize/pageSize-1, 1)
	return b
}

func writeState(t *testing.T, name string, memory []byte, devices string) {
	t.Helper()
	err := Write(t.Context(), name, ram{bytes.NewReader(memory), nil}, int64(len(memory)), func(w io.Writer) error {
		_, err := io.WriteString(w, devices)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// readState reads a state as a restore does.
func readState(ctx context.Context, name string) (memory []byte, devices string, err error) {
	f, err := Open(name)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	memory = make([]byte, f.MemorySize())
	if err := f.LoadMemory(ctx, into(memory)); err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	err = f.WriteDevices(&b)
	return memory, b.String(), err
}

// manyDevices is a stream of more than one chunk.
var manyDevices = string(bytes.Repeat([]byte("devices "), chunkSize/5))

func TestRoundTrip(t *testing.T) {
	want := someMemory()
	name := filepath.Join(t.TempDir(), "state")
	writeState(t, name, want, manyDevices)
	compressed := name + ".zst"
	if err := Compress(t.Context(), name, compressed); err != nil {
		t.Fatal(err)
	}
	again := compressed + "2"
	if err := Compress(t.Context(), compressed, again); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name, compressed, again} {
		got, devices, err := readState(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || devices != manyDevices {
			t.Errorf("%s: what was restored differs", filepath.Base(n))
		}
		if err := Verify(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	raw, _ := os.Stat(name)
	small, _ := os.Stat(compressed)
	if raw.Size() > 75*pageSize+int64(len(manyDevices)) {
		t.Errorf("%d bytes for 66 pages and the devices: zeros were written", raw.Size())
	}
	if small.Size() > raw.Size()*3/4 {
		t.Errorf("%d bytes of %d after compression", small.Size(), raw.Size())
	}
}

// TestExtents: only what may hold data is read.
func TestExtents(t *testing.T) {
	memory := someMemory()
	name := filepath.Join(t.TempDir(), "state")
	extents := []Extent{{0, 10}, {pageSize, 2 * pageSize}, {3*chunkSize - 1, 3*chunkSize + 1}}
	err := Write(t.Context(), name, ram{bytes.NewReader(memory), extents}, ramSize, func(w io.Writer) error {
		_, err := w.Write([]byte("d"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := readState(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(memory)
	clear(want[chunkSize : 2*chunkSize])
	clear(want[4*chunkSize:])
	if !bytes.Equal(got, want) {
		t.Error("not the chunks that the extents touch")
	}
}

// TestWriteFails: what could not be written is not there.
func TestWriteFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state")
	boom := errors.New("boom")
	for what, f := range map[string]func() error{
		"devices": func() error {
			return Write(t.Context(), name, ram{bytes.NewReader(someMemory()), nil}, ramSize, func(io.Writer) error { return boom })
		},
		"silent": func() error {
			return Write(t.Context(), name, nil, 0, func(io.Writer) error { return nil })
		},
		"no room": func() error {
			huge := ram{bytes.NewReader(someMemory()), []Extent{{0, 1 << 60}}}
			err := Write(t.Context(), name, huge, ramSize, func(io.Writer) error { return nil })
			var space *SpaceError
			if !errors.As(err, &space) {
				t.Errorf("no room: %v", err)
			}
			return err
		},
		"cancelled": func() error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return Write(ctx, name, ram{bytes.NewReader(someMemory()), nil}, ramSize, func(io.Writer) error { return nil })
		},
	} {
		if f() == nil {
			t.Errorf("%s: no error", what)
		}
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s: a file is left", what)
		}
	}
}

// TestDamage cuts a state off and changes bytes of it: whatever is restored without an error is what was saved.
func TestDamage(t *testing.T) {
	memory := someMemory()
	name := filepath.Join(t.TempDir(), "state")
	writeState(t, name, memory, "devices")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, at int, data []byte) {
		t.Helper()
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := readState(t.Context(), bad)
		var torn *TornError
		var version *VersionError
		if !errors.As(err, &torn) && !errors.As(err, &version) {
			t.Errorf("%s at %d: %v", what, at, err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		at := r.IntN(len(whole))
		try("cut off", at, whole[:at])
		flipped := bytes.Clone(whole)
		if at >= 12 && at < headerSize {
			continue // reserved
		}
		flipped[at] ^= 1 << r.IntN(8)
		try("flipped", at, flipped)
	}
	try("longer", len(whole), append(bytes.Clone(whole), 0))
	try("empty", 0, nil)
	newer := bytes.Clone(whole)
	newer[8] = 9
	try("newer", 8, newer)
}

// FuzzOpen: no file makes the reader do more than refuse it.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	name := filepath.Join(dir, "state")
	err := Write(context.Background(), name, ram{bytes.NewReader(make([]byte, pageSize)), nil}, pageSize, func(w io.Writer) error {
		_, err := w.Write([]byte("devices"))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := readIndex(bytes.NewReader(data), int64(len(data)))
		if err == nil && len(x.records) == 0 {
			t.Error("a state without devices is one")
		}
	})
}

// rig is a keeper with a disk.
type rig struct {
	*Keeper
	t     *testing.T
	facts []Fact
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, facts: []Fact{{"image", "1"}, {"QEMU", "7.2"}}}
	r.Keeper = &Keeper{
		Dir: filepath.Join(dir, "memory"), Disk: filepath.Join(dir, "disk"), Logger: slog.New(slog.DiscardHandler),
		Facts: func(context.Context) ([]Fact, error) { return r.facts, nil },
	}
	r.writeDisk("data")
	return r
}

// again is the keeper of the next process.
func (r *rig) again() *rig {
	r.unlock()
	k := *r.Keeper
	k.taken, k.next, k.born, k.still = nil, "", nil, nil
	return &rig{Keeper: &k, t: r.t, facts: r.facts}
}

func (r *rig) writeDisk(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.Disk, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// begin is New where it must work.
func (r *rig) begin() string {
	r.t.Helper()
	file, err := r.New(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

// save commits a state.
func (r *rig) save(suspended bool) {
	r.t.Helper()
	writeState(r.t, r.begin(), someMemory(), "devices")
	if err := r.Still(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Commit(r.t.Context(), suspended, []byte(`{"a":1}`)); err != nil {
		r.t.Fatal(err)
	}
}

// expect takes and says whether there is a state, and else why not.
func (r *rig) expect(state bool, why string) *Info {
	r.t.Helper()
	got, text, err := r.Take(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if (got != nil) != state || text != why {
		r.t.Fatalf("Take: state %v, why %q; want %v, %q", got != nil, text, state, why)
	}
	return got
}

func (r *rig) names() []string {
	entries, _ := os.ReadDir(r.Dir)
	var list []string
	for _, e := range entries {
		if e.Name() != lockName {
			list = append(list, e.Name())
		}
	}
	return list
}

func TestKeeperOnce(t *testing.T) {
	r := newRig(t)
	r.expect(false, "")
	r.save(true)
	r = r.again()
	state := r.expect(true, "")
	if !state.Suspended || string(state.Notes) != `{"a":1}` {
		t.Errorf("state is %+v", state)
	}
	if err := Verify(t.Context(), state.Path()); err != nil {
		t.Error(err)
	}
	// A process that died before the guest ran used nothing up.
	r = r.again()
	r.expect(true, "")
	if err := r.Consume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := r.names(); len(left) != 0 {
		t.Errorf("%q are left of a state that was used", left)
	}
	r.expect(false, "")
	r.again().expect(false, "")
	r.save(false)
	if err := r.Drop(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if left := r.names(); len(left) != 0 {
		t.Errorf("%q are left of a state that was dropped", left)
	}
}

// TestKeeperRefuses: a state is dropped, with the reason, where anything that it depends on has changed.
func TestKeeperRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig)
		why    string
	}{
		"another fact": {func(r *rig) { r.facts = []Fact{{"image", "1"}, {"QEMU", "8"}} }, "it was saved with another QEMU"},
		"a new fact":   {func(r *rig) { r.facts = append(r.facts, Fact{"processor", "x"}) }, "it was saved with another processor"},
		"the disk":     {func(r *rig) { r.writeDisk("more data") }, "the disk was changed since it was saved"},
		"a copy of the disk": {func(r *rig) {
			info, _ := os.Stat(r.Disk)
			os.Rename(r.Disk, r.Disk+".old")
			r.writeDisk("data")
			os.Chtimes(r.Disk, info.ModTime(), info.ModTime())
		}, "the disk was changed since it was saved"},
		"no file":   {func(r *rig) { os.Remove(r.file()) }, "the saved memory is damaged: its file is missing"},
		"cut off":   {func(r *rig) { os.Truncate(r.file(), 1000) }, "the saved memory is damaged: its end is missing"},
		"foreign":   {func(r *rig) { os.Remove(r.file()); writeState(r.t, r.file(), someMemory(), "other") }, "the saved memory is damaged: its file is another one"},
		"half info": {func(r *rig) { os.WriteFile(filepath.Join(r.Dir, infoName), []byte(`{"vers`), 0o600) }, "the saved memory is damaged: what is known of it cannot be read"},
		"odd name": {func(r *rig) {
			os.WriteFile(filepath.Join(r.Dir, infoName), []byte(`{"version":1,"file":"../disk"}`), 0o600)
		}, "the saved memory is damaged: its file has an impossible name"},
		"newer": {func(r *rig) { os.WriteFile(filepath.Join(r.Dir, infoName), []byte(`{"version":7}`), 0o600) }, "the saved memory has format 7, which a newer dev wrote"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.save(true)
			c.change(r)
			next := r.again()
			next.facts = r.facts
			next.Facts = func(context.Context) ([]Fact, error) { return r.facts, nil }
			next.expect(false, c.why)
			if left := next.names(); len(left) != 0 {
				t.Errorf("%q are left of a state that was refused", left)
			}
			next.expect(false, "")
		})
	}
}

// file is the committed state's.
func (r *rig) file() string {
	i, err := Read(r.Dir)
	if err != nil || i == nil {
		r.t.Fatalf("no state: %v", err)
	}
	return i.Path()
}

// TestDiskChangesMeanwhile: whoever writes to the disk once the VM has written its last, before or after its end, makes the memory worthless; also when that
// comes right after the VM's own last write.
func TestDiskChangesMeanwhile(t *testing.T) {
	for name, late := range map[string]bool{"before the state is committed": false, "right after it": true} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				r := newRig(t)
				writeState(t, r.begin(), someMemory(), "devices")
				r.writeDisk("the VM") // its last
				if err := r.Still(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !late {
					r.writeDisk("foe's.")
				}
				err := r.Commit(t.Context(), true, nil)
				if !late {
					if err == nil || !strings.Contains(err.Error(), "the disk was changed") {
						t.Fatalf("Commit: %v", err)
					}
					r.again().expect(false, "")
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				r.writeDisk("foe's.")
				r.again().expect(false, "the disk was changed since it was saved")
			}
		})
	}
}

// TestCommitNeedsAStillDisk: without it nothing is known of what the memory fits.
func TestCommitNeedsAStillDisk(t *testing.T) {
	r := newRig(t)
	writeState(t, r.begin(), someMemory(), "devices")
	if err := r.Commit(t.Context(), true, nil); err == nil {
		t.Error("Commit succeeds")
	}
	r.again().expect(false, "")
}

// TestSavedInVain: what the memory depends on was replaced while the machine ran: it is not saved under the new one's name, and not at all.
func TestSavedInVain(t *testing.T) {
	r := newRig(t)
	r.expect(false, "")
	r.facts = []Fact{{"image", "1"}, {"QEMU", "8.0"}}
	var changed *ChangedError
	if _, err := r.New(t.Context()); !errors.As(err, &changed) || changed.What != "QEMU" {
		t.Errorf("New: %v", err)
	}
	r.expect(false, "") // the next life is of the new one
	r.save(true)
	r.again().expect(true, "")
}

// TestKeeperCancelled: who gives up while taking loses nothing.
func TestKeeperCancelled(t *testing.T) {
	r := newRig(t)
	r.save(true)
	ctx, cancel := context.WithCancel(t.Context())
	r.Facts = func(context.Context) ([]Fact, error) { cancel(); return nil, ctx.Err() }
	if _, _, err := r.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Take: %v", err)
	}
	n := r.again()
	n.Facts = func(context.Context) ([]Fact, error) { return r.facts, nil }
	n.expect(true, "")
}

// TestKeeperKilled plays a death at each step of saving: the state before it is there, or the new one, and rubbish goes.
func TestKeeperKilled(t *testing.T) {
	r := newRig(t)
	r.save(true)
	before := r.file()
	// Dead while writing the next: the old state is of a disk that has changed since.
	r = r.again()
	r.expect(true, "")
	if err := r.Consume(t.Context()); err != nil {
		t.Fatal(err)
	}
	writeState(t, r.begin(), someMemory(), "half")
	r = r.again()
	r.expect(false, "")
	if names := r.names(); len(names) > 1 {
		t.Errorf("%q lie there, of no state", names)
	}
	r.save(false)
	if names := r.names(); len(names) != 2 {
		t.Errorf("%q lie there, of one state", names)
	}
	if r.file() == before {
		t.Error("the name of a state is used again")
	}
	r.again().expect(true, "")
}

func TestShrink(t *testing.T) {
	r := newRig(t)
	if err := Shrink(t.Context(), r.Dir); err != nil {
		t.Errorf("Shrink without a state: %v", err)
	}
	r.save(true)
	raw := r.file()
	if err := Shrink(t.Context(), r.Dir); err != nil {
		t.Fatal(err)
	}
	if r.file() == raw {
		t.Error("the state is not compressed")
	}
	small := r.file()
	if err := Shrink(t.Context(), r.Dir); err != nil || r.file() != small {
		t.Errorf("Shrink again: %v", err)
	}
	state := r.again().expect(true, "")
	memory, devices, err := readState(t.Context(), state.Path())
	if err != nil || devices != "devices" || sha256.Sum256(memory) != sha256.Sum256(someMemory()) {
		t.Errorf("another memory after compression: %v", err)
	}
}

// TestShrinkGivesWay: a state that is taken, or was used up meanwhile, stays as it is.
func TestShrinkGivesWay(t *testing.T) {
	r := newRig(t)
	r.save(true)
	state, err := Read(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	r.expect(true, "")
	next := *state
	next.File = "next" + fileSuffix
	if err := Compress(t.Context(), state.Path(), next.Path()); err != nil {
		t.Fatal(err)
	}
	if err := state.exchange(&next); !errors.Is(err, ErrWanted) {
		t.Errorf("exchange of a taken state: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	wanted := false
	watchWanted(ctx, r.Dir, func() { wanted = true })
	if !wanted {
		t.Error("that a state is taken is not noticed")
	}
	if err := r.Consume(t.Context()); err != nil {
		t.Fatal(err)
	}
	writeState(t, next.Path(), someMemory(), "devices")
	if err := state.exchange(&next); !errors.Is(err, ErrWanted) {
		t.Errorf("exchange of a state that was used: %v", err)
	}
	r.again().expect(false, "")
}
