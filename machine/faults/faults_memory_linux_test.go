// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// sleeper starts a container that lives on, and returns what it says to prove that it is the same one, not one that was started again.
func (l *lab) sleeper(t *testing.T) (proof func() string) {
	t.Helper()
	if out, err := l.docker(t, "run", "-d", "--name", "sleeper", "--restart", "always", busybox, "sh", "-c", "cat /proc/sys/kernel/random/uuid > /tmp/proof; while :; do sleep 1; done"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		l.up(t)
		if out, err := l.docker(t, "rm", "-f", "sleeper"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	proof = func() string {
		var out string
		await(t, "the container answers", func() (ok bool) {
			var err error
			out, err = l.docker(t, "exec", "sleeper", "cat", "/tmp/proof")
			return err == nil && out != ""
		})
		return out
	}
	return proof
}

// suspended saves a machine with a container, and has it go on.
func suspended(t *testing.T, l *lab) {
	l.write(t, "before-it-was-suspended")
	proof := l.sleeper(t)
	before := proof()
	l.dev(t, "machine", "suspend", "box")
	if s := l.status(t); s.Phase != "suspended" {
		t.Errorf("the machine is %s, want suspended", s.Phase)
	}
	if list := l.processes(t, "qemu-system"); len(list) > 0 {
		t.Errorf("a suspended machine has a VM: %v", list)
	}
	l.dev(t, "machine", "resume", "box")
	if after := proof(); after != before {
		t.Error("the container was started anew")
	}
	l.whole(t, "before-it-was-suspended")
}

// killAtSuspend kills something while a machine with a container is suspended.
func killAtSuspend(victim string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		proof := l.sleeper(t)
		atMoments(victim, func(_ *testing.T, _ *lab, kill func(...string)) {
			kill("suspend", "box")
			proof()
		})(t, l)
	}
}

// killAtResume kills something while such a machine is resumed. The container that was saved may be lost with the VM; what it had written is not.
func killAtResume(victim string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		proof := l.sleeper(t)
		atMoments(victim, func(t *testing.T, l *lab, kill func(...string)) {
			l.dev(t, "machine", "suspend", "box")
			kill("resume", "box")
			proof()
		})(t, l)
	}
}

// asleep suspends the machine, in which no container runs, ends the agent that waits for it, as a restart of the host does, and returns the file with the memory.
func (l *lab) asleep(t *testing.T) (state string) {
	t.Helper()
	l.dev(t, "machine", "suspend", "box")
	if len(l.processes(t, "hostagent")) > 0 {
		l.kill9(t, "hostagent")
	}
	if s := l.status(t); s.Phase != "suspended" && s.Phase != "stopped" { // without containers it is the same to users
		t.Errorf("the machine is %s, want suspended", s.Phase)
	}
	data, err := os.ReadFile(l.file("memory/state.json"))
	var known struct {
		File string `json:"file"`
	}
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil || known.File == "" {
		t.Fatalf("the saved memory: %v: %s", err, data)
	}
	return filepath.Join(l.file("memory"), known.File)
}

// badState damages the saved memory in several ways: each time the machine boots, and says why.
func badState(t *testing.T, l *lab) {
	for name, damage := range map[string]func(t *testing.T, state string){
		"torn": func(t *testing.T, state string) {
			info, err := os.Stat(state)
			if err == nil {
				err = os.Truncate(state, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"one byte": func(t *testing.T, state string) {
			f, err := os.OpenFile(state, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			at := info.Size() - info.Size()/3
			b := make([]byte, 1)
			if _, err = f.ReadAt(b, at); err == nil {
				b[0]++
				_, err = f.WriteAt(b, at)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(t *testing.T, state string) {
			if err := os.Truncate(state, 0); err != nil {
				t.Fatal(err)
			}
		},
		"of another disk": func(t *testing.T, _ string) {
			disk := l.file("data.img")
			if out, err := exec.Command("cp", "--sparse=always", disk, disk+".copy").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if err := os.Rename(disk+".copy", disk); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l.up(t)
			words := "before-" + strings.ReplaceAll(name, " ", "-")
			l.write(t, words)
			damage(t, l.asleep(t))
			out := l.dev(t, "machine", "start", "box")
			if !strings.Contains(out, "booting") || !strings.Contains(out, "memory") {
				t.Errorf("it does not say why it boots:\n%s", out)
			}
			l.whole(t, words)
		})
	}
}

// usedState starts a machine from a state that was used before, as a restored backup of the folder would.
func usedState(t *testing.T, l *lab) {
	l.write(t, "before-it-was-saved")
	l.asleep(t)
	backup := filepath.Join(l.home, "memory")
	if out, err := exec.Command("cp", "-a", "--sparse=always", l.file("memory"), backup).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.up(t)
	l.write(t, "written-after-the-backup")
	l.kill9(t, "qemu-system")
	await(t, "the machine is stopped", func() bool { return l.status(t).Phase == "stopped" })
	if err := os.RemoveAll(l.file("memory")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, l.file("memory")); err != nil {
		t.Fatal(err)
	}
	l.whole(t, "before-it-was-saved", "written-after-the-backup")
}

// hostDiskFull has the machine write more than the host has room for.
func hostDiskFull(t *testing.T, l *lab) {
	l.write(t, "before-the-host-was-full")
	ballast, back := l.smallDisk(t)
	l.up(t)
	ended := make(chan error, 1)
	go func() {
		out, err := l.docker(t, "run", "--rm", "-v", "big:/big", busybox, "sh", "-c", "head -c 600m /dev/urandom > /big/file && sync && wc -c < /big/file")
		if err == nil && !strings.HasSuffix(out, "629145600") {
			err = fmt.Errorf("it wrote %q", out)
		}
		ended <- err
	}()
	await(t, "the machine says that the host is full", func() bool {
		return strings.Contains(strings.Join(l.status(t).Problems, " "), "stands still")
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the container did not go on: %v", err)
	}
	l.well(t)
	l.whole(t, "before-the-host-was-full")
	back()
}

// smallDisk puts the machine's folder on a file system with 400 MiB of room, and as much again once the ballast is removed. The machine is stopped for that, and
// for the way back, which is at the latest that of the test's end.
func (l *lab) smallDisk(t *testing.T) (ballast string, back func()) {
	t.Helper()
	folder, image := filepath.Dir(l.file("x")), filepath.Join(l.home, "small.img")
	sh := func(script string) string {
		out, err := exec.Command("sh", "-euc", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a file system of its own")
	}
	l.dev(t, "machine", "stop", "--cold", "box")
	used := sh("du -sm " + folder + " | cut -f1")
	sh(fmt.Sprintf("truncate -s $((%s + 1000))M %s && mkfs.ext4 -q -m 0 %[2]s && mkdir %[2]s.d && mount -o loop %[2]s %[2]s.d", used, image))
	back = sync.OnceFunc(func() {
		l.dev(t, "machine", "stop", "--cold", "box")
		sh(fmt.Sprintf("umount %s && mount -o loop %s %s.d && cp -a --sparse=always %[3]s.d/. %[1]s/ && umount %[3]s.d && rm -r %[2]s %[3]s.d %[1]s/lost+found", folder, image, image))
	})
	t.Cleanup(back)
	sh(fmt.Sprintf("cp -a --sparse=always %s/. %s.d/ && umount %[2]s.d && mount -o loop %[2]s %[1]s && cd %[1]s && free=$(df -Pm . | awk 'NR==2{print $4}') && fallocate -l $((free - 400))M ballast", folder, image))
	return filepath.Join(folder, "ballast"), back
}
