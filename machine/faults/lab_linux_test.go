// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/enginetest"
)

// patience bounds one command on a machine: under emulation on a busy host a boot takes minutes.
const patience = 10 * time.Minute

// busybox is the image in the lab's machines.
const busybox = "busybox:test"

// lab is one user's home with machines in it.
type lab struct {
	home    string // short: sockets lie below it
	program string
	shared  string // a folder of the host that the machine has
	env     []string
}

// newLab builds dev, makes the machine "box" and puts something into it that no fault may lose.
func newLab(t *testing.T) *lab {
	t.Helper()
	image := machineImage(t)
	home, err := os.MkdirTemp("", "dev-f-")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{home: home, program: filepath.Join(home, "bin", "dev"), shared: filepath.Join(home, "shared")}
	l.env = append(os.Environ(), "DEV_HOME="+filepath.Join(home, "h"), "DOCKER_CONFIG="+filepath.Join(home, "docker"))
	t.Cleanup(func() { l.remove(t) })
	build := exec.Command("go", "build", "-o", filepath.Dir(l.program)+string(filepath.Separator), "../../cmd/dev", "../../cmd/dev-hostagent", "../../cmd/dev-build")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build dev: %v\n%s", err, out)
	}
	if err := os.Mkdir(l.shared, 0o755); err != nil {
		t.Fatal(err)
	}
	l.dev(t, "machine", "create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "2g", "--share", l.shared, "--use", "box")
	c, err := client.New(client.WithHost("unix://" + l.file("docker.sock")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	enginetest.BusyboxImage(t, c, busybox)
	l.run(t, "-v", "keep:/keep", busybox, "sh", "-c", "echo keepsake >> /keep/words && sync")
	return l
}

// machineImage is the folder of the machine image to test with.
func machineImage(t *testing.T) string {
	t.Helper()
	if os.Getenv("DEV_TEST_VM") == "" {
		t.Skip("breaks machines under QEMU: set DEV_TEST_VM=1, or DEV_TEST_VM=all for the slow faults, too")
	}
	dir := os.Getenv("DEV_TEST_MACHINE_IMAGE")
	if dir == "" {
		dir = filepath.Join("..", "..", "dist", "machine-image-"+runtime.GOARCH)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		t.Skip("there is no machine image: make demo-vm builds one into dist")
	}
	return dir
}

// slow skips a fault that takes minutes where that was not asked for.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("DEV_TEST_VM") != "all" {
		t.Skip("takes minutes under emulation: set DEV_TEST_VM=all")
	}
}

// remove takes everything away, and is itself a promise: a machine can be removed in whatever state a fault left it.
func (l *lab) remove(t *testing.T) {
	if _, err := os.Stat(l.file("machine.yaml")); err == nil {
		l.dev(t, "machine", "rm", "-f", "box")
	}
	l.noProcesses(t)
	l.noMounts(t)
	if err := os.RemoveAll(l.home); err != nil {
		t.Error(err)
	}
}

// file is a file in the machine's folder.
func (l *lab) file(name string) string { return filepath.Join(l.home, "h", "machines", "box", name) }

// command is dev with arguments, in a process group of its own: signals of tests reach it alone.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.program, args...)
	cmd.Env = l.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// bounded is a context for one command, also of a test that is cleaning up.
func bounded(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), patience)
}

// try runs dev and returns what it printed to both outputs.
func (l *lab) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	out, err := l.command(ctx, args...).CombinedOutput()
	t.Logf("dev %s: %v\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	return string(out), err
}

// dev runs dev, which must succeed.
func (l *lab) dev(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.try(t, args...)
	if err != nil {
		t.Fatalf("dev %s: %v\n%s\nthe agent's log:\n%s", strings.Join(args, " "), err, out, tail(l.file("agent.log")))
	}
	return out
}

// fails runs dev, which must fail and say each of the words.
func (l *lab) fails(t *testing.T, args []string, words ...string) {
	t.Helper()
	out, err := l.try(t, args...)
	if err == nil {
		t.Errorf("dev %s succeeded", strings.Join(args, " "))
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("dev %s does not say %q:\n%s", strings.Join(args, " "), w, out)
		}
	}
}

// guest runs a shell command in the machine.
func (l *lab) guest(t *testing.T, command string) string {
	t.Helper()
	return strings.TrimSpace(l.dev(t, "machine", "ssh", "box", command))
}

func tail(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-6000):])
}

// up sees to it that the machine runs, and waits until its engine answers.
func (l *lab) up(t *testing.T) {
	t.Helper()
	l.dev(t, "machine", "start", "box")
	await(t, "the engine answers", func() bool { _, err := l.docker(t, "info"); return err == nil })
}

// write keeps words in the volume that newLab has made, and makes sure that they are on the disk.
func (l *lab) write(t *testing.T, words string) {
	t.Helper()
	l.guest(t, "echo "+words+" >> /var/lib/docker/volumes/keep/_data/words && sync")
}

// run runs a container to its end with the engine of the machine and returns what it printed.
func (l *lab) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	cmd := exec.CommandContext(ctx, dockerCLI(t), append([]string{"-H", "unix://" + l.file("docker.sock"), "run", "--rm"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker run %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

// docker runs the docker CLI on the machine's engine.
func (l *lab) docker(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	out, err := exec.CommandContext(ctx, dockerCLI(t), append([]string{"-H", "unix://" + l.file("docker.sock")}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// dockerCLI is the docker CLI to act with.
func dockerCLI(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("DEV_TEST_DOCKER"), filepath.Join("..", "..", "dist", "peers", "docker"), "docker"} {
		if name == "" {
			continue
		}
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Skip("there is no docker CLI: make peers builds one")
	return ""
}

// whole asserts what every fault must leave: the next command works, nothing is lost, and nobody is left over.
func (l *lab) whole(t *testing.T, words ...string) {
	t.Helper()
	l.up(t)
	kept := l.run(t, "-v", "keep:/keep", busybox, "cat", "/keep/words")
	for _, w := range append([]string{"keepsake"}, words...) {
		if !strings.Contains(kept, w) {
			t.Errorf("%q is lost: the volume has %q", w, kept)
		}
	}
	for _, word := range []string{"hostagent", "qemu-system"} {
		if list := l.processes(t, word); len(list) != 1 {
			t.Errorf("%d processes %s run, want 1: %v", len(list), word, list)
		}
	}
	l.well(t)
}

// well waits until the machine has no problems, which it may need a moment for.
func (l *lab) well(t *testing.T) {
	t.Helper()
	var problems []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if problems = l.status(t).Problems; len(problems) == 0 {
			return
		}
	}
	t.Errorf("the machine has problems: %v", problems)
}

// status is what dev says about the machine.
type status struct {
	Phase    string   `json:"phase"`
	Problems []string `json:"problems"`
}

func (l *lab) status(t *testing.T) status {
	t.Helper()
	var s status
	ctx, cancel := bounded(t)
	defer cancel()
	out, err := l.command(ctx, "machine", "status", "--json", "box").Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		t.Fatalf("read the status: %v\n%s", err, out)
	}
	return s
}

// await waits until a condition holds, which it must within the patience of the lab.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// process is one that has the lab's home in its command line.
type process struct {
	pid  int
	args []string
}

// processes are those of the lab whose program or first argument has the word; none of them is a command of the test itself. Those that compress saved
// memory, with the time that nobody else wants, end by themselves and are not among them.
func (l *lab) processes(t *testing.T, word string) []process {
	t.Helper()
	return slices.DeleteFunc(l.allProcesses(t), func(p process) bool {
		return compresses(p) || !strings.Contains(strings.Join(p.args[:min(2, len(p.args))], " "), word)
	})
}

// compressors are the processes that compress saved memory.
func (l *lab) compressors(t *testing.T) []process {
	t.Helper()
	return slices.DeleteFunc(l.allProcesses(t), func(p process) bool { return !compresses(p) })
}

func compresses(p process) bool { return slices.Contains(p.args, "--shrink") }

// allProcesses are those with the lab's home in their command line.
func (l *lab) allProcesses(t *testing.T) []process {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var list []process
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(data, []byte(l.home)) {
			continue // it ended, or is somebody else's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, process{pid, strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")})
	}
	return list
}

// kill9 kills the one process with the word, as the kernel's OOM killer or an impatient user does.
func (l *lab) kill9(t *testing.T, word string) {
	t.Helper()
	list := l.processes(t, word)
	if len(list) == 0 {
		t.Fatalf("no process %q runs", word)
	}
	for _, p := range list {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
	await(t, fmt.Sprintf("the end of %q", word), func() bool { return !alive(list) })
}

// alive says whether one of the processes is still what it was.
func alive(list []process) bool {
	for _, p := range list {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err == nil && strings.TrimRight(string(data), "\x00") == strings.Join(p.args, "\x00") {
			return true
		}
	}
	return false
}
