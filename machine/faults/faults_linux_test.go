// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// killCommand starts a command and kills what victim names as soon as one of the command's lines has the words. Where the words never come, the command
// was through before: there is nothing to kill.
func (l *lab) killCommand(t *testing.T, words, victim string, args ...string) (killed bool) {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	cmd := l.command(ctx, append([]string{"--debug"}, args...)...)
	read, write := io.Pipe()
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { err := cmd.Wait(); write.Close(); ended <- err }()
	lines := bufio.NewScanner(io.TeeReader(read, &all))
	for lines.Scan() {
		if killed || !strings.Contains(lines.Text(), words) {
			continue
		}
		killed = true
		if victim == "" {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
			continue
		}
		for _, p := range l.processes(t, victim) {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // likewise
		}
	}
	err := <-ended
	t.Logf("dev %s, killed %q: %v: %v\n%s", strings.Join(args, " "), victim, killed, err, all.String())
	return killed
}

// startStages are words of the lines that a start prints, one for each stage.
var startStages = []string{"starting the machine", "starting the VM", "booting", "waking", "waiting for the engine", "publishing sockets"}

// killAtStart kills one of the processes of a start at each of its stages.
func killAtStart(victim string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		for _, stage := range startStages {
			l.dev(t, "machine", "stop", "box")
			l.noProcesses(t)
			if !l.killCommand(t, stage, victim, "machine", "start", "box") {
				t.Logf("a start has no stage %q now", stage)
			}
			l.whole(t)
		}
	}
}

// killAtStop kills one of the processes of a stop a moment after it was asked for.
func killAtStop(victim string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		for _, delay := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 600 * time.Millisecond} {
			l.write(t, fmt.Sprintf("before-the-stop-%d", delay.Milliseconds()))
			l.killLater(t, delay, victim, "machine", "stop", "box")
			l.whole(t, fmt.Sprintf("before-the-stop-%d", delay.Milliseconds()))
		}
	}
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

// killLater starts a command and kills a process a while later; "" is the command itself. Whether the command succeeds is its own affair.
func (l *lab) killLater(t *testing.T, delay time.Duration, victim string, args ...string) {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	cmd := l.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	if victim == "" {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	} else {
		for _, p := range l.processes(t, victim) {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // likewise
		}
	}
	err := cmd.Wait()
	l.noticed(t)
	t.Logf("dev %s, %q killed after %v: %v\n%s", strings.Join(args, " "), victim, delay, err, out.String())
}

// twoStarts is what two terminals do.
func twoStarts(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	ended := make(chan error, 2)
	for range cap(ended) {
		go func() {
			ctx, cancel := bounded(t)
			defer cancel()
			out, err := l.command(ctx, "machine", "start", "box").CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			ended <- err
		}()
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
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
	await(t, "the machine is well again", func() bool { return len(l.status(t).Problems) == 0 })
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

// guestClock steps the guest's clock both ways, as a sleeping laptop and a bad time server do.
func guestClock(t *testing.T, l *lab) {
	for _, step := range []time.Duration{-12 * time.Hour, 12 * time.Hour} {
		l.guest(t, fmt.Sprintf("date -s @%d", time.Now().Add(step).Unix()))
		await(t, "the clock is right", func() bool {
			text := l.guest(t, "date +%s")
			seconds, err := time.ParseDuration(text + "s")
			return err == nil && time.Until(time.Unix(int64(seconds.Seconds()), 0)).Abs() < 30*time.Second // the command itself takes a while here
		})
	}
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
