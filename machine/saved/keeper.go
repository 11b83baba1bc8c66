// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Keeper keeps the state of one machine. Only one process uses it, besides Compress; its methods are called by one goroutine at a time.
type Keeper struct {
	// Dir is the folder for it, Disk the machine's disk.
	Dir, Disk string
	// Facts are looked up when a state is saved or wanted.
	Facts  func(ctx context.Context) ([]Fact, error)
	Logger *slog.Logger

	next  string // where a state is being written
	taken *flock.Flock
}

// lockWait is how long Compress may hold the lock: it does so only for exchanging two files.
const lockWait = 20 * time.Second

// lock keeps Compress away from the state.
func (k *Keeper) lock(ctx context.Context) error {
	if k.taken != nil {
		return nil
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of saved memory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	l := flock.New(filepath.Join(k.Dir, lockName))
	if ok, err := l.TryLockContext(ctx, 5*time.Millisecond); !ok || err != nil {
		return fmt.Errorf("lock the saved memory: %w", err)
	}
	k.taken = l
	return nil
}

func (k *Keeper) unlock() {
	if k.taken == nil {
		return
	}
	if err := k.taken.Unlock(); err != nil {
		k.Logger.Warn("unlock the saved memory", "error", err)
	}
	k.taken = nil
}

// Take returns the state that may be restored; nil where there is none, with why if there was one. That one is dropped. The state is held until Consume or
// Drop.
func (k *Keeper) Take(ctx context.Context) (state *Info, why string, err error) {
	if _, err := os.Stat(filepath.Join(k.Dir, infoName)); errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err := k.lock(ctx); err != nil {
		return nil, "", err
	}
	state, err = Read(k.Dir)
	if err == nil && state == nil {
		k.unlock()
		return nil, "", nil
	}
	var facts []Fact
	if err == nil {
		err = state.whole()
	}
	if err == nil {
		facts, err = k.Facts(ctx)
	}
	if err == nil {
		why = state.Fits(k.Disk, facts)
	} else if ctx.Err() == nil {
		why = err.Error()
	}
	switch {
	case ctx.Err() != nil:
		k.unlock()
		return nil, "", context.Cause(ctx)
	case why != "":
		return nil, why, k.Drop(ctx, why)
	}
	return state, "", nil
}

// Consume makes the taken state one that is never found again, durably.
func (k *Keeper) Consume(context.Context) error {
	err := os.Remove(filepath.Join(k.Dir, infoName))
	if err == nil {
		err = atomicfile.SyncDir(k.Dir)
	}
	if err != nil {
		return fmt.Errorf("use up the saved memory: %w", err)
	}
	k.sweep()
	k.unlock()
	return nil
}

// New is where a state shall be written.
func (k *Keeper) New() string {
	k.next = filepath.Join(k.Dir, strings.ToLower(rand.Text()[:12])+fileSuffix)
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		k.Logger.Warn("make the folder of saved memory", "error", err) // writing the file says more
	}
	return k.next
}

// Commit makes the file of New the state, for the disk as it is now.
func (k *Keeper) Commit(ctx context.Context, suspended bool, notes json.RawMessage) error {
	if k.next == "" {
		return errors.New("commit the saved memory: none was saved")
	}
	facts, err := k.Facts(ctx)
	if err != nil {
		return fmt.Errorf("commit the saved memory: %w", err)
	}
	i := Info{Version: infoVersion, File: filepath.Base(k.next), Created: time.Now(), Suspended: suspended, Facts: facts, Notes: notes, dir: k.Dir}
	if err := i.describe(); err != nil {
		return err
	}
	if i.Disk, err = syncDisk(k.Disk); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if err := i.write(); err != nil {
		return err
	}
	k.next = ""
	k.sweep()
	return nil
}

// describe notes what tells the state file from another.
func (i *Info) describe() error {
	f, err := Open(i.Path())
	if err != nil {
		return err
	}
	i.Size, i.Sum = f.identity()
	return f.Close()
}

// syncDisk makes durable what the VM wrote last, and says what the disk is then.
func syncDisk(name string) (Disk, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return Disk{}, fmt.Errorf("write the disk out: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return Disk{}, fmt.Errorf("write the disk out: %w", err)
	}
	return IdentifyDisk(name)
}

// Drop removes the state and what New began.
func (k *Keeper) Drop(ctx context.Context, why string) error {
	if _, err := os.Stat(k.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	k.next = ""
	err := os.Remove(filepath.Join(k.Dir, infoName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop the saved memory: %w", err)
	}
	if err == nil {
		k.Logger.Info("saved memory is dropped", "why", why)
		err = atomicfile.SyncDir(k.Dir)
	} else {
		err = nil
	}
	k.sweep()
	return err
}

// sweep removes files of no state: used up, dropped, or left by a crash. It is best effort. The lock is held.
func (k *Keeper) sweep() {
	state, _ := Read(k.Dir) // one that cannot be read has no file
	entries, err := os.ReadDir(k.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := filepath.Join(k.Dir, e.Name())
		switch {
		case e.Name() == infoName, e.Name() == lockName, name == k.next, state != nil && e.Name() == state.File:
		default:
			if err := os.Remove(name); err != nil {
				k.Logger.Warn("remove used memory", "error", err)
			}
		}
	}
}
