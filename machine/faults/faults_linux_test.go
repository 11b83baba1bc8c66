// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestVMFaults makes each fault happen to one machine, one after the other.
func TestVMFaults(t *testing.T) {
	l := newLab(t)
	for _, f := range table() {
		if f.produce == nil {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			if f.Slow {
				slow(t)
			}
			began := time.Now()
			t.Cleanup(func() { record(t, f.Name, began) }) // the last of the cleanups
			l.up(t)
			f.produce(t, l)
			l.whole(t)
			if !t.Failed() {
				l.dev(t, "machine", "stop", "box")
				l.nothingLeft(t)
			}
		})
	}
}

func killAgent(t *testing.T, l *lab) {
	l.write(t, "before-the-agent-died")
	l.kill9(t, "hostagent")
	if s := l.status(t); s.Phase != "broken" || len(s.Problems) == 0 {
		t.Errorf("the status does not say that the agent died: %+v", s)
	}
	l.whole(t, "before-the-agent-died")
}

func killVM(t *testing.T, l *lab) {
	l.write(t, "before-the-vm-died")
	l.kill9(t, "qemu-system")
	await(t, "the machine is stopped", func() bool { return l.status(t).Phase == "stopped" })
	l.whole(t, "before-the-vm-died")
}

func killBoth(t *testing.T, l *lab) {
	l.write(t, "before-both-died")
	list := append(l.processes(t, "hostagent"), l.processes(t, "qemu-system")...)
	for _, p := range list {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the end of both", func() bool { return !alive(list) })
	l.whole(t, "before-both-died")
}

// running is a command of the test's that runs beside it, and what it has printed so far.
type running struct {
	cmd   *exec.Cmd
	ended chan error

	mu   sync.Mutex
	said bytes.Buffer
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.Write(p)
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.String()
}

// begin starts a command; ended tells its end.
func (l *lab) begin(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := bounded(t)
	r := &running{cmd: l.command(ctx, args...), ended: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		defer cancel()
		r.ended <- r.cmd.Wait()
	}()
	return r
}

// killWhen starts a command and kills what victim names as soon as now says so, which looks at what the command has printed; victim "" is the command itself.
// killed is false where there was nothing to kill before the command was through. Whether the command succeeds is its own affair.
func (l *lab) killWhen(t *testing.T, victim string, now func(said string) bool, args ...string) (killed bool) {
	t.Helper()
	r := l.begin(t, args...)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var err error
	for lives := true; lives; {
		select {
		case err = <-r.ended:
			lives = false
		case <-tick.C:
			if !killed && now(r.String()) {
				killed = l.kill(t, victim, r.cmd.Process.Pid)
			}
		}
	}
	l.noticed(t)
	t.Logf("%s: dev %s, killed %q: %v: %v\n%s", time.Now().Format(time.TimeOnly), strings.Join(args, " "), victim, killed, err, r)
	return killed
}

// kill kills a command's process group, or, where victim names others, those; it says whether there were any.
func (l *lab) kill(t *testing.T, victim string, command int) bool {
	t.Helper()
	if victim == "" {
		return syscall.Kill(-command, syscall.SIGKILL) == nil
	}
	list := l.processes(t, victim)
	for _, p := range list {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may have ended
	}
	return len(list) > 0
}

// noticed waits until the machine is what it says: an agent needs a moment to learn that its VM was killed, in which it truly says that all is well.
func (l *lab) noticed(t *testing.T) {
	t.Helper()
	await(t, "the machine is what it says", func() bool {
		if l.status(t).Phase != "running" {
			return true
		}
		_, err := l.docker(t, "info")
		return err == nil
	})
}

// stages are the lines that a start prints, one for each stage: of a machine that wakes from its memory, and of one that boots.
var stages = map[bool][]string{
	false: {"starting the machine", "waking", "waiting for the engine", "mounting shared folders", "publishing sockets"},
	true:  {"starting the machine", "booting", "waiting for the engine"},
}

// killAtStart kills one of the processes of a start at each of its stages.
func killAtStart(victim string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		for _, cold := range []bool{false, true} {
			for _, stage := range stages[cold] {
				l.dev(t, "machine", "stop", fmt.Sprintf("--cold=%v", cold), "box")
				l.noProcesses(t)
				if !l.killWhen(t, victim, func(said string) bool { return strings.Contains(said, stage) }, "machine", "start", "box") {
					t.Logf("nothing was killed at stage %q", stage)
				}
				l.whole(t)
			}
		}
	}
}

// moments are when something is killed after a command was started that takes less than a second or two on a quiet machine.
var moments = []time.Duration{0, 60 * time.Millisecond, 250 * time.Millisecond, 600 * time.Millisecond}

// atMoments does something once for each moment. What it asks to be killed is killed that much later than the command was started; then all must be whole.
func atMoments(victim string, do func(t *testing.T, l *lab, kill func(command ...string))) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		for _, moment := range moments {
			words := fmt.Sprintf("%s-%v", filepath.Base(t.Name()), moment)
			l.write(t, words)
			do(t, l, func(command ...string) {
				t.Helper()
				begin := time.Now()
				if !l.killWhen(t, victim, func(string) bool { return time.Since(begin) >= moment }, append([]string{"machine"}, command...)...) {
					t.Logf("nothing was killed after %v", moment)
				}
				l.whole(t, words)
			})
		}
	}
}

// killAtStop kills one of the processes of a stop.
func killAtStop(victim string) func(*testing.T, *lab) {
	return atMoments(victim, func(_ *testing.T, _ *lab, kill func(...string)) { kill("stop", "box") })
}

// twoStarts is what two terminals do.
func twoStarts(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	for _, r := range []*running{l.begin(t, "machine", "start", "box"), l.begin(t, "machine", "start", "box")} {
		if err := <-r.ended; err != nil {
			t.Errorf("%v: %s", err, r)
		}
	}
}

// powerCut starts a machine from a copy of the disk that was made while a container wrote: what had been synced before must be in it.
func powerCut(t *testing.T, l *lab) {
	l.write(t, "before-the-power-cut")
	if out, err := l.docker(t, "run", "-d", "--name", "writer", "-v", "writes:/w", busybox, "sh", "-c",
		"i=0; while :; do dd if=/dev/zero of=/w/$i bs=64k count=16 2>/dev/null; sync; i=$(( (i+1) % 50 )); done"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	await(t, "the container writes", func() bool {
		out, err := l.docker(t, "exec", "writer", "ls", "/w")
		return err == nil && strings.Count(out, "\n") > 3
	})
	copied := filepath.Join(l.home, "cut.img")
	if out, err := exec.Command("cp", "--sparse=always", l.file("data.img"), copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.kill9(t, "qemu-system")
	await(t, "the machine is stopped", func() bool { return l.status(t).Phase == "stopped" })
	if err := os.Rename(copied, l.file("data.img")); err != nil {
		t.Fatal(err)
	}
	l.whole(t, "before-the-power-cut")
	if out, err := l.docker(t, "rm", "-f", "writer"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := l.docker(t, "volume", "rm", "writes"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// fullGuestDisk fills the machine's disk to the last byte.
func fullGuestDisk(t *testing.T, l *lab) {
	l.write(t, "before-the-disk-was-full")
	out, err := l.docker(t, "run", "--rm", "-v", "fill:/f", busybox, "sh", "-c", "dd if=/dev/zero of=/f/fill bs=1M; sync")
	if !strings.Contains(out, "No space left on device") {
		t.Errorf("the disk was not filled: %v: %s", err, out)
	}
	if out, err := l.docker(t, "ps", "-a"); err != nil {
		t.Errorf("the engine does not answer with a full disk: %v: %s", err, out)
	}
	await(t, "the machine says that its disk is full", func() bool {
		return strings.Contains(strings.Join(l.status(t).Problems, " "), "full")
	})
	if out, err := l.docker(t, "volume", "rm", "fill"); err != nil {
		t.Fatalf("free the disk: %v: %s", err, out)
	}
	l.write(t, "after-the-disk-was-full")
	l.well(t)
	l.whole(t, "before-the-disk-was-full", "after-the-disk-was-full")
}

// guestOutOfMemory lets a container take all there is.
func guestOutOfMemory(t *testing.T, l *lab) {
	out, err := l.docker(t, "run", "--rm", "--tmpfs", "/m:size=8g", busybox, "dd", "if=/dev/zero", "of=/m/fill", "bs=1M")
	if err == nil {
		t.Errorf("the container did not run out of memory: %s", out)
	}
	await(t, "the engine answers", func() bool { _, err := l.docker(t, "ps"); return err == nil })
	l.whole(t)
}

// engineCrashes kills the engine in the machine, again and again, while a container runs.
func engineCrashes(t *testing.T, l *lab) {
	l.write(t, "before-the-engine-crashed")
	proof := l.sleeper(t)
	proof()
	for range 3 {
		l.guest(t, `for p in $(grep -lx dockerd /proc/[0-9]*/comm); do kill -9 "$(echo "$p" | cut -d/ -f3)"; done`)
		await(t, "the engine is back", func() bool { _, err := l.docker(t, "info"); return err == nil })
		proof()
	}
	l.whole(t, "before-the-engine-crashed")
}

// newerSpec is a machine that a newer dev has written.
func newerSpec(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	old, err := os.ReadFile(l.file("machine.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(old, []byte("version: 1"), []byte("version: 99\nunheard_of: yes"), 1)
	if bytes.Equal(newer, old) {
		t.Fatal("the spec has no version 1")
	}
	for name, text := range map[string][]byte{"newer": newer, "truncated": old[:len(old)/3], "empty": nil} {
		if err := os.WriteFile(l.file("machine.yaml"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		l.fails(t, []string{"machine", "start", "box"}, "machine.yaml")
		if name == "newer" {
			l.fails(t, []string{"machine", "start", "box"}, "newer dev")
		}
		if now, err := os.ReadFile(l.file("machine.yaml")); err != nil || !bytes.Equal(now, text) {
			t.Errorf("%s: the spec was changed: %v\n%s", name, err, now)
		}
	}
	if err := os.WriteFile(l.file("machine.yaml"), old, 0o600); err != nil {
		t.Fatal(err)
	}
}
