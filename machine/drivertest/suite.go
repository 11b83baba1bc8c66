// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package drivertest is the suite that every driver of machines has to pass, with a stand-in for the hypervisor where the real one is not wanted.
//
// A driver's test makes a Subject and calls Run. The suite looks from outside only: at the driver's methods, at the machine's folder, and at the processes
// that have the folder in their arguments.
package drivertest

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/process"
)

// Subject is what the suite tests.
type Subject struct {
	// Driver makes the driver. It is called for each test, and once more where a process that died is played.
	Driver func(t *testing.T) machine.Driver
	// Spec is the machine to run.
	Spec machine.Spec
	// Furnish completes the folder and link of a new machine with what the host agent would bring; nil: nothing.
	Furnish func(t *testing.T, dir machine.Dir, link *hostagent.Link)
	// Patience bounds every wait; 0: a minute.
	Patience time.Duration
	// Hung makes a driver whose VMs do not heed the power button; nil: not tested.
	Hung func(t *testing.T) machine.Driver
	// Keeping makes a driver whose VMs cannot be saved, Losing one that cannot restore what was; nil: not tested.
	Keeping, Losing func(t *testing.T) machine.Driver
	// Staying makes a driver whose VMs do not end once they are saved; nil: not tested.
	Staying func(t *testing.T) machine.Driver
	// Crashing makes a driver whose VM crashes once; nil: not tested.
	Crashing func(t *testing.T) machine.Driver
	// Settled waits until a guest that was just started heeds the power button; nil: it does at once.
	Settled func(t *testing.T, link hostagent.Link)
	// Failing makes drivers, by name, whose VM does not start; Start has to say why.
	Failing map[string]func(t *testing.T) machine.Driver
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	if s.Patience == 0 {
		s.Patience = time.Minute
	}
	for name, test := range map[string]func(*testing.T, Subject){
		"Check":               testCheck,
		"PrepareChangesOnce":  testPrepare,
		"PowerOff":            testPowerOff,
		"Kill":                testKill,
		"KillFromOutside":     testKillFromOutside,
		"OutlivesItsContext":  testContext,
		"Find":                testFind,
		"FindEndsInOrder":     testFindPowerOff,
		"FindKillsWhatHangs":  testFindHung,
		"StartFails":          testStartFails,
		"Crash":               testCrash,
		"StartCancelled":      testStartCancelled,
		"SideBySide":          testSideBySide,
		"StartsAgain":         testStartsAgain,
		"FolderWithOddLetter": testOddFolder,
		"Balloon":             testBalloon,
		"ResizeDisk":          testResizeDisk,
		"Suspend":             testSuspend,
		"SuspendFails":        testSuspendFails,
		"Snapshot":            testSnapshot,
		"RestoreFails":        testRestoreFails,
		"Plug":                testPlug,
		"Unsavable":           testUnsavable,
		"FindPaused":          testFindPaused,
		"SuspendRefused":      testSuspendRefused,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// rig is a machine's folder and what its agent would hold open.
type rig struct {
	t    *testing.T
	s    Subject
	ctx  context.Context
	dir  machine.Dir
	link hostagent.Link
}

// newRig makes a machine in a folder that is short enough for sockets.
func newRig(t *testing.T, s Subject, name string) *rig {
	t.Helper()
	home, err := os.MkdirTemp("", "drv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	dir := machine.Dir(filepath.Join(home, name))
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	t.Cleanup(cancel)
	r := &rig{t: t, s: s, ctx: ctx, dir: dir, link: hostagent.Link{
		Network: dir.Network(), MAC: "52:54:00:00:00:01", Seed: dir.Seed(), Console: dir.Console(),
	}}
	r.furnish()
	return r
}

// furnish makes the files that a machine has, and takes the network card's connection.
func (r *rig) furnish() {
	r.t.Helper()
	for _, name := range []string{r.dir.DataDisk(), r.dir.Seed()} {
		f, err := os.Create(name)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := f.Truncate(int64(r.s.Spec.DiskMiB) << 20); err != nil {
			r.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
	listener, err := net.Listen("unix", r.link.Network)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { listener.Close() })
	go drain(listener)
	if r.s.Furnish != nil {
		r.s.Furnish(r.t, r.dir, &r.link)
	}
}

// drain reads and forgets what network cards send, until the listener is closed.
func drain(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 64<<10)
			for {
				if _, err := conn.Read(buf); err != nil {
					return
				}
			}
		}()
	}
}

// start prepares and starts the VM.
func (r *rig) start(d machine.Driver) hostagent.VM {
	r.t.Helper()
	if err := d.Prepare(r.ctx, r.dir, r.s.Spec); err != nil {
		r.t.Fatalf("Prepare: %v", err)
	}
	vm, err := d.Start(r.ctx, r.dir, r.s.Spec, r.link)
	if err != nil {
		r.t.Fatalf("Start: %v\n%s", err, r.console())
	}
	r.t.Cleanup(func() {
		if err := vm.Kill(context.Background()); err != nil {
			r.t.Errorf("Kill at the end: %v", err)
		}
		r.noProcess()
	})
	return vm
}

func (r *rig) console() string {
	data, _ := os.ReadFile(r.link.Console)
	return string(data[max(0, len(data)-4000):])
}

// processes are those with the machine's folder in their arguments.
func (r *rig) processes() []process.Process {
	r.t.Helper()
	found, err := process.Find(context.Background(), func(args []string) bool {
		return strings.Contains(strings.Join(args, "\x00"), string(r.dir)+string(filepath.Separator))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

func (r *rig) noProcess() {
	r.t.Helper()
	for _, p := range r.processes() {
		r.t.Errorf("process %d is left: %q", p.PID, p.Args)
	}
}

// awaitEnd presses the power button until the VM is off: a guest that is not up yet does not see it.
func (r *rig) awaitEnd(vm hostagent.VM) {
	r.t.Helper()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		if err := vm.PowerOff(r.ctx); err != nil {
			select {
			case <-vm.Done():
				return // it went while the button was pressed
			default:
				r.t.Fatalf("PowerOff: %v", err)
			}
		}
		select {
		case <-vm.Done():
			return
		case <-again.C:
		case <-r.ctx.Done():
			r.t.Fatalf("the VM did not power off\n%s", r.console())
		}
	}
}

func (r *rig) await(vm hostagent.VM, what string) {
	r.t.Helper()
	select {
	case <-vm.Done():
	case <-r.ctx.Done():
		r.t.Fatalf("%s: the VM did not end", what)
	}
}

func (r *rig) alive(vm hostagent.VM) {
	r.t.Helper()
	select {
	case <-vm.Done():
		r.t.Fatalf("the VM ended: %v\n%s", vm.Err(), r.console())
	default:
	}
}

func testCheck(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	for range 2 {
		if err := s.Driver(t).Check(r.ctx, s.Spec); err != nil {
			t.Fatalf("Check: %v", err)
		}
	}
	r.noProcess()
}

// testPrepare: a second call changes nothing, not even a file's time.
func testPrepare(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	d := s.Driver(t)
	if err := d.Prepare(r.ctx, r.dir, s.Spec); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	before := r.folder()
	if err := d.Prepare(r.ctx, r.dir, s.Spec); err != nil {
		t.Fatalf("Prepare again: %v", err)
	}
	after := r.folder()
	if len(before) != len(after) {
		t.Errorf("Prepare again left %v, before there were %v", after, before)
	}
	for name, was := range before {
		if after[name] != was {
			t.Errorf("Prepare again changed %q", name)
		}
	}
}

type fileState struct {
	size int64
	time time.Time
	mode fs.FileMode
}

func (r *rig) folder() map[string]fileState {
	r.t.Helper()
	files := map[string]fileState{}
	err := filepath.WalkDir(string(r.dir), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files[name] = fileState{info.Size(), info.ModTime(), info.Mode()}
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

func testPowerOff(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	r.alive(vm)
	if err := vm.Err(); err != nil {
		t.Errorf("Err while it runs: %v", err)
	}
	if vm.PID() == 0 && len(r.processes()) > 0 {
		t.Error("PID is 0 though there is a process")
	}
	r.awaitEnd(vm)
	if err := vm.Err(); err != nil {
		t.Errorf("Err after a power-off: %v", err)
	}
	r.noProcess()
}

func testKill(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	done := make(chan error, 3)
	for range cap(done) {
		go func() { done <- vm.Kill(r.ctx) }()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Errorf("Kill: %v", err)
		}
	}
	r.await(vm, "Kill")
	if vm.Err() == nil {
		t.Error("Err after Kill is nil, which means a power-off")
	}
	if err := vm.PowerOff(r.ctx); err == nil {
		t.Error("PowerOff of a VM that is gone succeeds")
	}
	r.noProcess()
}

// testKillFromOutside: what the user's own kill, or the system's for want of memory, does.
func testKillFromOutside(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	for _, p := range r.processes() {
		if err := p.Kill(r.ctx); err != nil {
			t.Fatal(err)
		}
	}
	r.await(vm, "kill of its process")
	if err := vm.Err(); err == nil || errors.Is(err, hostagent.ErrCrashed) {
		t.Errorf("Err after its process was killed is %v", err)
	}
}

func testContext(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	d := s.Driver(t)
	ctx, cancel := context.WithCancel(r.ctx)
	vm, err := d.Start(ctx, r.dir, s.Spec, r.link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vm.Kill(context.Background()) })
	cancel()
	r.alive(vm)
	r.awaitEnd(vm)
	if err := vm.Err(); err != nil {
		t.Errorf("Err after the context of Start ended and a power-off: %v", err)
	}
}

// finder skips the test for drivers whose VMs cannot outlive their agent.
func finder(t *testing.T, d machine.Driver) machine.Finder {
	t.Helper()
	f, ok := d.(machine.Finder)
	if !ok {
		t.Skip("the driver is no machine.Finder")
	}
	return f
}

func (r *rig) find(d machine.Driver) hostagent.VM {
	r.t.Helper()
	vm, err := finder(r.t, d).Find(r.ctx, r.dir)
	if err != nil {
		r.t.Fatalf("Find: %v", err)
	}
	return vm
}

func testFind(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	if vm := r.find(s.Driver(t)); vm != nil {
		t.Fatalf("Find before the start: VM with process %d", vm.PID())
	}
	vm := r.start(s.Driver(t))
	other := newRig(t, s, "m")
	if found := other.find(s.Driver(t)); found != nil {
		t.Errorf("Find for another machine of the same name: VM with process %d", found.PID())
	}
	found := r.find(s.Driver(t))
	if found == nil {
		t.Fatal("Find while it runs: none")
	}
	if found.PID() != vm.PID() {
		t.Errorf("Find: process %d, started was %d", found.PID(), vm.PID())
	}
	if err := found.Kill(r.ctx); err != nil {
		t.Fatalf("Kill of what was found: %v", err)
	}
	r.await(vm, "Kill of what was found")
	r.await(found, "Kill of what was found")
	if again := r.find(s.Driver(t)); again != nil {
		t.Errorf("Find after the end: VM with process %d", again.PID())
	}
	r.noProcess()
}

// Orphan is a VM whose driver gives up what it holds of it, as a process that dies does.
type Orphan interface{ Abandon() }

// abandon plays the death of the process that started the VM.
func abandon(t *testing.T, vm hostagent.VM) {
	t.Helper()
	o, ok := vm.(Orphan)
	if !ok {
		t.Skip("the driver's VMs have no Abandon")
	}
	o.Abandon()
}

func testFindPowerOff(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	abandon(t, vm)
	found := r.find(s.Driver(t))
	if found == nil {
		t.Fatal("Find: none")
	}
	r.awaitEnd(found)
	r.await(vm, "power-off of what was found")
	if err := vm.Err(); err != nil {
		t.Errorf("Err after the power-off of what was found: %v", err)
	}
}

func testFindHung(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("no VM that hangs")
	}
	r := newRig(t, s, "m")
	vm := r.start(s.Hung(t))
	abandon(t, vm)
	found := r.find(s.Hung(t))
	if found == nil {
		t.Fatal("Find: none")
	}
	if err := machine.EndVM(r.ctx, found, 200*time.Millisecond); err != nil {
		t.Fatalf("EndVM: %v", err)
	}
	r.await(vm, "EndVM")
	r.noProcess()
}

func testStartFails(t *testing.T, s Subject) {
	if len(s.Failing) == 0 {
		t.Skip("no VM that does not start")
	}
	for name, driver := range s.Failing {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, s, "m")
			vm, err := driver(t).Start(r.ctx, r.dir, s.Spec, r.link)
			if err == nil {
				t.Errorf("Start succeeds: %v", vm.Kill(r.ctx))
			}
			r.noProcess()
		})
	}
}

// testCrash: a VM that crashes says so, and can be started again.
func testCrash(t *testing.T, s Subject) {
	if s.Crashing == nil {
		t.Skip("no VM that crashes")
	}
	r := newRig(t, s, "m")
	d := s.Crashing(t)
	vm, err := d.Start(r.ctx, r.dir, s.Spec, r.link)
	if err == nil {
		r.await(vm, "the crash")
		err = vm.Err()
	}
	if !errors.Is(err, hostagent.ErrCrashed) {
		t.Errorf("it ended: %v", err)
	}
	r.noProcess()
	again := r.start(d)
	r.alive(again)
	r.awaitEnd(again)
	if err := again.Err(); err != nil {
		t.Errorf("it was powered off: %v", err)
	}
}

// testStartCancelled: whatever Start makes of a context that ends, a process belongs to the VM it returns.
func testStartCancelled(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	vm, err := s.Driver(t).Start(ctx, r.dir, s.Spec, r.link)
	if err == nil {
		if err := vm.Kill(r.ctx); err != nil {
			t.Error(err)
		}
	}
	r.noProcess()
}

func testSideBySide(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("one real VM at a time")
	}
	a, b := newRig(t, s, "a"), newRig(t, s, "b")
	d := s.Driver(t)
	first, second := a.start(d), b.start(d)
	if err := first.Kill(a.ctx); err != nil {
		t.Fatal(err)
	}
	b.alive(second)
	b.awaitEnd(second)
	if err := second.Err(); err != nil {
		t.Errorf("Err of the second: %v", err)
	}
}

// testStartsAgain: nothing that a VM leaves is in the way of the next, whatever its end was.
func testStartsAgain(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("real VMs take long to boot")
	}
	r := newRig(t, s, "m")
	d := s.Driver(t)
	vm := r.start(d)
	if err := vm.Kill(r.ctx); err != nil {
		t.Fatal(err)
	}
	vm = r.start(d)
	r.awaitEnd(vm)
	vm = r.start(d)
	r.alive(vm)
}

// testOddFolder: options of hypervisors end at commas, and shells at spaces.
func testOddFolder(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("real VMs take long to boot")
	}
	name := "a b,c=ü"
	if runtime.GOOS == "windows" {
		name = "a b,c=u"
	}
	r := newRig(t, s, name)
	vm := r.start(s.Driver(t))
	if r.find(s.Driver(t)) == nil {
		t.Error("Find: none")
	}
	r.awaitEnd(vm)
}
