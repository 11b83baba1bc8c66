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
	// Facts are looked up when a life of the machine begins, and when it is to be saved.
	Facts  func(ctx context.Context) ([]Fact, error)
	Logger *slog.Logger

	born  []Fact // those of the present life, as far as they could be found out
	next  string // where a state is being written
	facts []Fact // that it will depend on
	still *Disk  // the disk as it fits it; nil: nobody has looked yet
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
	facts, factsErr := k.Facts(ctx)
	k.born = facts
	if entries, err := os.ReadDir(k.Dir); errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, "", nil
	}
	if err := k.lock(ctx); err != nil {
		return nil, "", err
	}
	state, err = Read(k.Dir)
	if err == nil && state == nil {
		k.sweep() // what a crash left of one
		k.unlock()
		return nil, "", nil
	}
	if err == nil {
		err = state.whole()
	}
	if err == nil {
		err = factsErr
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

// ChangedError says that a memory that is saved now could not be restored: what it depends on is not what the machine was started with.
type ChangedError struct{ What string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the memory could not be restored: this computer has another %s than the machine was started with", e.What)
}

// Hint names the next step.
func (e *ChangedError) Hint() string { return "`dev machine restart` starts the machine with it" }

// New is where a state shall be written. It is refused, with a *ChangedError, where that would be in vain.
func (k *Keeper) New(ctx context.Context) (file string, err error) {
	k.next, k.still = "", nil
	if k.facts, err = k.Facts(ctx); err != nil {
		return "", fmt.Errorf("save the machine's memory: %w", err)
	}
	if k.born != nil {
		if i := (&Info{Facts: k.born}); i.another(k.facts) != "" {
			return "", &ChangedError{i.another(k.facts)}
		}
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return "", fmt.Errorf("make the folder of saved memory: %w", err)
	}
	k.next = filepath.Join(k.Dir, strings.ToLower(rand.Text()[:12])+fileSuffix)
	return k.next, nil
}

// Still notes the disk that the state of New fits. It is called while the VM is there and has written all that it will ever write: whoever changes the disk
// from then on makes the state worthless, whether the VM has ended by then or not.
func (k *Keeper) Still(ctx context.Context) error {
	d, err := syncDisk(k.Disk)
	if err != nil {
		return err
	}
	if err := k.outwaitTick(ctx, d); err != nil {
		return err
	}
	k.still = &d
	return nil
}

const (
	// tickPause is how often the file system's clock is looked at, tickLimit for how long: the slowest ones count in steps of 2 seconds.
	tickPause = 2 * time.Millisecond
	tickLimit = 2500 * time.Millisecond
	tickName  = "tick"
)

// outwaitTick waits until a change of the disk would get another time than the last one has: file systems count time in steps, and what is written within
// one cannot be told from what was there before.
func (k *Keeper) outwaitTick(ctx context.Context, d Disk) error {
	probe := filepath.Join(k.Dir, tickName)
	defer os.Remove(probe)
	limit := time.NewTimer(tickLimit)
	defer limit.Stop()
	tick := time.NewTicker(tickPause)
	defer tick.Stop()
	for {
		if err := os.WriteFile(probe, []byte{0}, 0o600); err != nil {
			return fmt.Errorf("look at the file system's clock: %w", err)
		}
		now, err := IdentifyDisk(probe)
		if err != nil || now.last() != d.last() {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return nil // a clock that stands still tells nothing
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Commit makes the file of New the state, for the disk as it was when it was still.
func (k *Keeper) Commit(ctx context.Context, suspended bool, notes json.RawMessage) error {
	switch {
	case k.next == "":
		return errors.New("commit the saved memory: none was saved")
	case k.still == nil:
		return errors.New("commit the saved memory: the disk that it fits is not known")
	}
	i := Info{
		Version: infoVersion, File: filepath.Base(k.next), Created: time.Now(), Suspended: suspended,
		Facts: k.facts, Disk: *k.still, Notes: notes, dir: k.Dir,
	}
	if err := i.describe(); err != nil {
		return err
	}
	if why := i.Fits(k.Disk, nil); why != "" {
		return fmt.Errorf("commit the saved memory: %s", why)
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if err := i.write(); err != nil {
		return err
	}
	k.next, k.still = "", nil
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
