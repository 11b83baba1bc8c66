// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// livesVariable makes this test binary live the lives of a machine in a folder, until it is killed.
const livesVariable = "DEV_TEST_SAVED_LIVES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(livesVariable); dir != "" {
		if err := lives(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lives runs one life of a machine after the other: its memory is restored, where there is one that fits, used up, the disk is written to, and the memory
// saved with what the disk holds then; at times somebody else writes to the disk, at any moment. It ends only where a promise was broken.
func lives(dir string) error {
	ctx := context.Background()
	k := &Keeper{
		Dir: filepath.Join(dir, "memory"), Disk: filepath.Join(dir, "disk"), Logger: slog.New(slog.DiscardHandler),
		Facts: func(context.Context) ([]Fact, error) { return []Fact{{"image", "1"}}, nil },
	}
	for {
		if err := restoreLife(ctx, k, filepath.Join(dir, "used")); err != nil {
			return err
		}
		content := fmt.Sprintf("%d %d", time.Now().UnixNano(), rand.Uint64())
		if err := os.WriteFile(k.Disk, []byte(content), 0o600); err != nil {
			return err
		}
		file, err := k.New(ctx)
		if err != nil {
			return err
		}
		err = Write(ctx, file, ram{bytes.NewReader(someMemory()), nil}, ramSize, func(w io.Writer) error {
			_, err := io.WriteString(w, content)
			return err
		})
		if err != nil {
			return err
		}
		if err := k.Still(ctx); err != nil {
			return err
		}
		touched := rand.IntN(4) == 0
		if touched { // somebody writes to the disk while the VM ends, as many bytes
			if err := os.WriteFile(k.Disk, []byte(strings.ToUpper(strings.Repeat("x", len(content)))), 0o600); err != nil {
				return err
			}
		}
		switch err := k.Commit(ctx, true, nil); {
		case touched && err == nil:
			return errors.New("memory was committed to a disk that had been changed")
		case touched:
			if err := k.Drop(ctx, err.Error()); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		if rand.IntN(3) == 0 {
			if err := Shrink(ctx, k.Dir); err != nil && !errors.Is(err, ErrWanted) {
				return err
			}
		}
	}
}

// restoreLife takes and uses up a state, and says where it is not the one for this disk, or was used before.
func restoreLife(ctx context.Context, k *Keeper, used string) error {
	state, _, err := k.Take(ctx)
	if err != nil || state == nil {
		return err
	}
	disk, err := os.ReadFile(k.Disk)
	if err != nil {
		return err
	}
	_, content, err := readState(ctx, state.Path())
	if err != nil {
		return fmt.Errorf("a state that was committed cannot be read: %w", err)
	}
	if content != string(disk) {
		return fmt.Errorf("memory of %q is restored to a disk with %q", content, disk)
	}
	if list, _ := os.ReadFile(used); strings.Contains(string(list), content+"\n") {
		return fmt.Errorf("memory of %q is used twice", content)
	}
	if err := k.Consume(ctx); err != nil {
		return err
	}
	f, err := os.OpenFile(used, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // the guest runs
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, content)
	return errors.Join(err, f.Close())
}

// TestKilledAnywhere kills a process that saves and restores memory at some moment, again and again: no memory is used twice, or with another disk, and the
// next process goes on.
func TestKilledAnywhere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	restored := func() bool {
		used, err := os.ReadFile(filepath.Join(dir, "used"))
		return err == nil && len(used) > 0
	}
	for i := 0; i < 40 || !restored(); i++ { // a slow host needs longer lives
		if i > 400 {
			t.Fatal("no memory was ever restored")
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), livesVariable+"="+dir)
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("life %d: %v: %s", i, err, said.String())
		case <-time.After(time.Duration(20+rand.IntN(150+10*i)) * time.Millisecond):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "memory")); len(entries) > 8 {
		t.Errorf("%d files are left", len(entries))
	}
}
