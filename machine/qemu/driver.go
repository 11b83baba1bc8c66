// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/internal/lazyregexp"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/process"
	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/vmimage"
)

// Name is the driver's name in a spec.
const Name = "qemu"

// Driver runs machines with QEMU. Its methods are safe for concurrent use.
type Driver struct {
	Images *vmimage.Store
	// State is the folder in which proven accelerators are remembered: ~/.dev.
	State string
	// Say tells the user what was found out about accelerators, once per host boot; nil: nobody.
	Say    func(text string)
	Logger *slog.Logger
	// Program is the QEMU to run instead of the one that is found by its name.
	Program string
}

var (
	_ machine.Driver    = (*Driver)(nil)
	_ machine.Finder    = (*Driver)(nil)
	_ machine.Validator = (*Driver)(nil)
)

// minVersion is the first QEMU that takes a network card's other end as a stream on a unix socket.
var minVersion = [2]int{7, 2}

const (
	versionDeadline = 20 * time.Second
	// startDeadline is how long QEMU may take to answer at its monitor.
	startDeadline = 60 * time.Second
)

// Validate refuses settings that this driver does not have.
func (d *Driver) Validate(spec machine.Spec) error {
	for name := range spec.Options {
		if name != machine.OptionTLSNames {
			return fmt.Errorf("option %q is not one of driver %q", name, Name)
		}
	}
	return acceleratorFits(runtime.GOOS, runtime.GOARCH, spec)
}

// acceleratorFits refuses an accelerator that no host of this kind has, or that runs only the host's own architecture.
func acceleratorFits(goos, goarch string, spec machine.Spec) error {
	a := spec.Accelerator
	if a == "" || a == "auto" || a == "tcg" {
		return nil
	}
	if has := native(goos); a != has {
		return fmt.Errorf("accelerator %q does not exist on %s: use auto, %s or tcg", a, goos, has)
	}
	if spec.Arch != goarch {
		return fmt.Errorf("accelerator %q runs %s machines on this host: use tcg for %s", a, goarch, spec.Arch)
	}
	return nil
}

// Check says whether a QEMU is there that can run the machine, and proves the accelerator.
func (d *Driver) Check(ctx context.Context, spec machine.Spec) error {
	program, err := d.program(spec.Arch)
	if err != nil {
		return err
	}
	if err := checkVersion(ctx, program); err != nil {
		return err
	}
	_, err = d.accelerator(ctx, program, spec)
	return err
}

// Prepare has nothing to make: the machine's files are enough.
func (d *Driver) Prepare(context.Context, machine.Dir, machine.Spec) error { return nil }

// MissingError says that there is no QEMU.
type MissingError struct{ Program, OS string }

func (e *MissingError) Error() string { return fmt.Sprintf("find %q: it is not installed", e.Program) }

// Hint says how to get it.
func (e *MissingError) Hint() string {
	switch e.OS {
	case "darwin":
		return "install it with `brew install qemu`"
	case "windows":
		return "install it with `winget install SoftwareFreedomConservancy.QEMU`"
	}
	pkg := "qemu-system-x86"
	if strings.HasSuffix(e.Program, "aarch64") {
		pkg = "qemu-system-arm"
	}
	return fmt.Sprintf("install it with `apt-get install %s` (Debian, Ubuntu), `dnf install %s` (Fedora) or your system's package manager", pkg, strings.Replace(pkg, "qemu-system-arm", "qemu-system-aarch64", 1))
}

// OldError says that QEMU is too old.
type OldError struct{ Program, Version string }

func (e *OldError) Error() string {
	return fmt.Sprintf("use %q: its version is %s and %d.%d is the oldest that will do", e.Program, e.Version, minVersion[0], minVersion[1])
}

// Hint names the next step.
func (e *OldError) Hint() string { return "upgrade QEMU" }

// programName is QEMU's name for a guest's architecture.
func programName(arch string) string {
	if arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// program finds QEMU: in the path, or where its installers put it.
func (d *Driver) program(arch string) (string, error) {
	if d.Program != "" {
		return d.Program, nil
	}
	name := programName(arch)
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	for _, folder := range installFolders(runtime.GOOS, os.Getenv) {
		if p, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return p, nil
		}
	}
	return "", &MissingError{Program: name, OS: runtime.GOOS}
}

// installFolders are where QEMU may be though the path does not say so.
func installFolders(goos string, getenv func(string) string) []string {
	switch goos {
	case "darwin":
		return []string{"/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin"}
	case "windows":
		var list []string
		for _, v := range []string{"ProgramFiles", "ProgramW6432"} {
			if folder := getenv(v); folder != "" {
				list = append(list, filepath.Join(folder, "qemu"))
			}
		}
		return list
	}
	return []string{"/usr/bin", "/usr/local/bin"}
}

var versionLine = lazyregexp.New(`version (\d+)\.(\d+)[^\s)]*`)

// checkVersion asks QEMU which it is.
func checkVersion(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, versionDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return &MissingError{Program: program, OS: runtime.GOOS}
	}
	if err != nil {
		return fmt.Errorf("ask %q for its version: %w", program, err)
	}
	version, ok := parseVersion(string(out))
	if !ok {
		return fmt.Errorf("ask %q for its version: it said %q", program, firstLine(string(out)))
	}
	if slices.Compare(version[:], minVersion[:]) < 0 {
		return &OldError{Program: program, Version: fmt.Sprintf("%d.%d", version[0], version[1])}
	}
	return nil
}

func parseVersion(text string) (v [2]int, ok bool) {
	found := versionLine.FindStringSubmatch(text)
	if found == nil {
		return v, false
	}
	for i := range v {
		n, err := strconv.Atoi(found[i+1])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// Start starts QEMU and waits until its monitor answers.
func (d *Driver) Start(ctx context.Context, dir machine.Dir, spec machine.Spec, link hostagent.Link) (hostagent.VM, error) {
	program, err := d.program(spec.Arch)
	if err != nil {
		return nil, err
	}
	accelerator, err := d.accelerator(ctx, program, spec)
	if err != nil {
		return nil, err
	}
	i, err := d.image(spec)
	if err != nil {
		return nil, err
	}
	args := commandLine(host{OS: runtime.GOOS, Accelerator: accelerator}, i, dir, spec, link)
	d.Logger.Debug("starting QEMU", "program", program, "args", args)
	return d.run(ctx, program, args, dir, spec, link)
}

// run starts QEMU with its memory, empty or restored, and its shares.
func (d *Driver) run(ctx context.Context, program string, args []string, dir machine.Dir, spec machine.Spec, link hostagent.Link) (_ hostagent.VM, err error) {
	memory, err := newGuestMemory(spec.MemoryMiB)
	if err != nil {
		return nil, err
	}
	restore := func(*vm) error { return nil }
	if link.State != "" {
		state, err := openState(link.State, memory)
		if err != nil {
			return nil, errors.Join(err, memory.Close())
		}
		defer state.Close()
		var loadErr error
		loaded := make(chan struct{})
		loading, cancel := context.WithCancel(ctx)
		defer func() { cancel(); <-loaded }()
		go func() { // while QEMU starts
			defer close(loaded)
			if state.MemorySize() > 0 {
				loadErr = state.LoadMemory(loading, memory)
			}
		}()
		restore = func(v *vm) error { return v.restore(ctx, link, state, func() error { <-loaded; return loadErr }) }
	}
	v, err := launch(ctx, launching{program, args, dir, memory, sharePorts(spec)}, d.Logger)
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	if err := v.begin(ctx, link, restore); err != nil {
		return nil, errors.Join(v.why(ctx, err), v.Kill(context.WithoutCancel(ctx)))
	}
	return v, nil
}

// openState opens a state for a memory.
func openState(file string, memory *guestMemory) (*saved.File, error) {
	state, err := saved.Open(file)
	if err != nil {
		return nil, err
	}
	var want int64
	if memory != nil {
		want = memory.size
	}
	if size := state.MemorySize(); size != want {
		return nil, errors.Join(fmt.Errorf("restore the machine's memory: it was saved with %d MiB apart and there are %d", size>>20, want>>20), state.Close())
	}
	return state, nil
}

// begin restores the memory, plugs in the shares and lets the guest run.
func (v *vm) begin(ctx context.Context, link hostagent.Link, restore func(*vm) error) error {
	if link.State == "" && len(link.Shares) == 0 {
		return nil
	}
	if err := restore(v); err != nil {
		return err
	}
	for _, s := range link.Shares {
		if err := v.Plug(ctx, s); err != nil {
			return err
		}
	}
	return v.monitor.call(ctx, "cont", nil, nil)
}

// image finds the machine's image. It is looked at as a whole only where it is made, pulled, or asked to be verified.
func (d *Driver) image(spec machine.Spec) (image, error) {
	found, err := d.Images.Find(spec.Image, spec.Arch)
	if err != nil {
		return image{}, err
	}
	if found.Problem != nil {
		return image{}, found.Problem
	}
	return image{Dir: found.Dir, RootUUID: found.Manifest.RootUUID}, nil
}

// Find finds the machine's QEMU by its command line.
func (d *Driver) Find(ctx context.Context, dir machine.Dir) (hostagent.VM, error) {
	monitor := monitorDevice(dir)
	found, err := process.Find(ctx, func(args []string) bool { return d.isQEMU(args[0]) && slices.Contains(args, monitor) })
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return adopt(found, dir, d.Logger), nil
}

// isQEMU looks at a program's name: a viewer of command lines may have the same arguments.
func (d *Driver) isQEMU(program string) bool {
	name := filepath.Base(program)
	return strings.HasPrefix(name, "qemu-system-") || d.Program != "" && name == filepath.Base(d.Program)
}
