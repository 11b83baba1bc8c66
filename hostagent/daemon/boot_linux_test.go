// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

func TestBootsAgain(t *testing.T) {
	crash := fmt.Errorf("stage: %w", fmt.Errorf("%w: signal: segmentation fault", hostagent.ErrCrashed))
	for name, c := range map[string]struct {
		err           error
		linked, tried bool
		want          bool
	}{
		"a crash":                        {err: crash, want: true},
		"a second crash":                 {err: crash, tried: true},
		"a crash when the guest was up":  {err: crash, linked: true},
		"an end with an error":           {err: errors.New("exit status 1")},
		"a guest that does not answer":   {err: &stageError{hostagent.StageLink, &deadlineError{time.Minute}}},
		"an order":                       {err: errStop},
		"a crash beside another failure": {err: errors.Join(errors.New("end"), crash), want: true},
	} {
		if got := bootsAgain(c.err, c.linked, c.tried); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBootPatience(t *testing.T) {
	p := bootPatience{3 * time.Minute, 9 * time.Minute}
	for _, c := range []struct{ elapsed, silent, want time.Duration }{
		{3 * time.Minute, 10 * time.Second, 170 * time.Second}, // it said something
		{3 * time.Minute, 3 * time.Minute, 0},
		{3 * time.Minute, time.Hour, 0},                    // of the boot before it
		{3 * time.Minute, -time.Hour, 3 * time.Minute},     // the clock was set back
		{8 * time.Minute, 5 * time.Second, time.Minute},    // as a whole
		{9 * time.Minute, time.Second, 0},                  // however much it says
		{20 * time.Minute, time.Second, -11 * time.Minute}, // the host slept
	} {
		if got := p.left(c.elapsed, c.silent); got != c.want {
			t.Errorf("%v, silent for %v: %v instead of %v", c.elapsed, c.silent, got, c.want)
		}
	}
}

// crashing makes the first VMs of a machine crash before their guest does anything.
func (m *fakeMachine) crashing(times int, fail bool) (started *int) {
	start, n := m.o.Start, 0
	m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
		n++
		if n > times {
			return start(ctx, l)
		}
		err := fmt.Errorf("QEMU ended: %w: signal: segmentation fault", hostagent.ErrCrashed)
		if fail {
			return nil, err
		}
		vm := newFakeVM(m.t)
		vm.err = err
		vm.off()
		return vm, nil
	}
	return &n
}

// TestCrashedBoot: a VM that crashes before its guest is reached is started once more, which is told.
func TestCrashedBoot(t *testing.T) {
	for name, atOnce := range map[string]bool{"as it is started": true, "a moment later": false} {
		t.Run(name, func(t *testing.T) {
			m := newFakeMachine(t)
			started := m.crashing(1, atOnce)
			m.run()
			said := make(chan string, 100)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_ = m.client.Events(ctx, func(e hostagent.Event) { // ends with ctx
				said <- e.Text
				if e.Phase == hostagent.Running {
					cancel()
				}
			})
			close(said)
			var lines []string
			for line := range said {
				if strings.Contains(line, "boots once more") {
					lines = append(lines, line)
				}
			}
			if len(lines) != 1 || !strings.Contains(lines[0], "it crashed: signal: segmentation fault") {
				t.Errorf("it was said: %q", lines)
			}
			m.finish()
			if *started != 2 {
				t.Errorf("%d VMs were started", *started)
			}
		})
	}
}

// TestCrashesAgain: there is no third time.
func TestCrashesAgain(t *testing.T) {
	m := newFakeMachine(t)
	started := m.crashing(2, false)
	m.begin()
	if err := m.end(); !errors.Is(err, hostagent.ErrCrashed) || *started != 2 {
		t.Errorf("%d VMs were started: %v", *started, err)
	}
}

// TestCrashesLater: a machine whose guest was reached does not boot by itself.
func TestCrashesLater(t *testing.T) {
	m := newFakeMachine(t)
	started := 0
	start := m.o.Start
	m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
		started++
		return start(ctx, l)
	}
	m.o.engineSocket = m.file("nothing.sock")
	m.begin()
	m.await("the engine's stage", func(s *hostagent.Status) bool { return s.Stage == hostagent.StageEngine })
	m.vm.err = fmt.Errorf("QEMU ended: %w", hostagent.ErrCrashed)
	m.vm.off()
	if err := m.end(); !errors.Is(err, hostagent.ErrCrashed) || started != 1 {
		t.Errorf("%d VMs were started: %v", started, err)
	}
}

// TestSlowBoot: a boot that goes on is waited for longer.
func TestSlowBoot(t *testing.T) {
	m := newFakeMachine(t)
	m.o.Deadlines = map[hostagent.Stage]time.Duration{hostagent.StageLink: time.Second}
	m.o.Start = func(context.Context, hostagent.Link) (hostagent.VM, error) {
		ahead := time.Now().Add(time.Hour) // as if something were written all the time
		return m.vm, errors.Join(os.WriteFile(m.o.Console, []byte("[  1.0] dev: mounts\n"), 0o600), os.Chtimes(m.o.Console, ahead, ahead))
	}
	m.begin()
	if err := m.end(); err == nil || !strings.Contains(err.Error(), "not done after") || strings.Contains(err.Error(), "after 1s") {
		t.Errorf("it ended: %v", err)
	}
}
