// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/machine"
)

// probeDeadline is how long the tiny guest may take: it needs a few milliseconds.
const probeDeadline = 8 * time.Second

// native is the accelerator of an operating system.
func native(goos string) string {
	switch goos {
	case "linux":
		return "kvm"
	case "darwin":
		return "hvf"
	case "windows":
		return "whpx"
	}
	return ""
}

// proof is what was found out about an accelerator; it is kept in accelerator.json.
type proof struct {
	// Boot is the host's boot and Program the QEMU that it was found out with: either may make a difference.
	Boot        string    `json:"boot"`
	Program     string    `json:"program"`
	ProgramTime time.Time `json:"program_time"`
	Accelerator string    `json:"accelerator"`
	Arch        string    `json:"arch"`
	Works       bool      `json:"works"`
	Why         string    `json:"why,omitempty"`
}

// same says whether a proof answers the question of another.
func (p proof) same(q proof) bool {
	return p.Boot == q.Boot && p.Boot != "" && p.Program == q.Program && p.ProgramTime.Equal(q.ProgramTime) && p.Accelerator == q.Accelerator && p.Arch == q.Arch
}

// AcceleratorError says that the accelerator that was asked for does not work.
type AcceleratorError struct{ Accelerator, Why string }

func (e *AcceleratorError) Error() string {
	return fmt.Sprintf("use accelerator %q: %s", e.Accelerator, e.Why)
}

// Hint names the next step.
func (e *AcceleratorError) Hint() string {
	return "use accelerator auto or tcg, or give this user access to the host's virtualization"
}

// accelerator chooses how the machine's processors are run: as the spec says, or the host's own way if it is proven, and emulation otherwise.
func (d *Driver) accelerator(ctx context.Context, program string, spec machine.Spec) (string, error) {
	wish := spec.Accelerator
	if wish == "tcg" {
		return "tcg", nil
	}
	has := native(runtime.GOOS)
	if has == "" || spec.Arch != runtime.GOARCH {
		return "tcg", nil
	}
	p, fresh, err := d.prove(ctx, program, has, spec.Arch)
	switch {
	case err != nil:
		return "", err
	case p.Works:
		return has, nil
	case wish == has:
		return "", &AcceleratorError{Accelerator: has, Why: p.Why}
	case fresh:
		d.say(fmt.Sprintf("%s does not work here (%s): machines run in software emulation, several times slower", strings.ToUpper(has), p.Why))
	}
	return "tcg", nil
}

func (d *Driver) say(text string) {
	if d.Say == nil {
		d.Logger.Warn(text)
		return
	}
	d.Say(text)
}

// prove runs the tiny guest unless its answer is known, and says whether it did.
func (d *Driver) prove(ctx context.Context, program, accelerator, arch string) (p proof, fresh bool, err error) {
	question := ask(program, accelerator, arch)
	if known, ok := d.recall(question); ok {
		return known, false, nil
	}
	why := unusable(accelerator)
	if why == "" {
		why = runProbe(ctx, program, host{OS: runtime.GOOS, Accelerator: accelerator}, arch)
	}
	if err := ctx.Err(); err != nil {
		return question, false, err
	}
	question.Works, question.Why = why == "", why
	d.remember(question)
	return question, true, nil
}

var _ machine.Prober = (*Driver)(nil)

// Probe runs the tiny guest though its answer is known.
func (d *Driver) Probe(ctx context.Context, spec machine.Spec) (machine.Probe, error) {
	p := machine.Probe{Accelerator: native(runtime.GOOS)}
	if spec.Accelerator == "tcg" || p.Accelerator == "" || spec.Arch != runtime.GOARCH {
		return p, nil
	}
	program, err := d.program(spec.Arch)
	if err != nil {
		return p, err
	}
	if p.Why = unusable(p.Accelerator); p.Why == "" {
		p.Why = runProbe(ctx, program, host{OS: runtime.GOOS, Accelerator: p.Accelerator}, spec.Arch)
	}
	if known, ok := d.recall(ask(program, p.Accelerator, spec.Arch)); ok && known.Works && p.Why != "" {
		p.Forget = func() error { return os.Remove(d.memory()) }
	}
	return p, ctx.Err()
}

// ask is the question whether an accelerator works on this host now.
func ask(program, accelerator, arch string) proof {
	question := proof{Boot: bootID(), Program: program, Accelerator: accelerator, Arch: arch}
	if info, err := os.Stat(program); err == nil {
		question.ProgramTime = info.ModTime()
	}
	return question
}

// unusable says what is known without trying: a device that is missing or shut.
func unusable(accelerator string) string {
	if accelerator != "kvm" {
		return ""
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "the host has no /dev/kvm"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not open /dev/kvm: add the user to the group kvm"
	case err != nil:
		return err.Error()
	}
	_ = f.Close() // nothing was written
	return ""
}

func (d *Driver) memory() string { return filepath.Join(d.State, "accelerator.json") }

// recall finds an answer of this host boot.
func (d *Driver) recall(question proof) (proof, bool) {
	for _, p := range d.proofs() {
		if p.same(question) {
			return p, true
		}
	}
	return proof{}, false
}

// proofs are what is remembered; a file that cannot be read is as good as none.
func (d *Driver) proofs() []proof {
	data, err := os.ReadFile(d.memory())
	if err != nil {
		return nil
	}
	var list []proof
	if json.Unmarshal(data, &list) != nil {
		return nil
	}
	return list
}

// remember keeps an answer with those of the same boot. Where it cannot be kept the next command asks again.
func (d *Driver) remember(p proof) {
	list := []proof{p}
	for _, old := range d.proofs() {
		if old.Boot == p.Boot && !old.same(p) {
			list = append(list, old)
		}
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = atomicfile.Write(d.memory(), append(data, '\n'), 0o600)
	}
	if err != nil {
		d.Logger.Warn("remember what accelerator works", "error", err)
	}
}

// tinyGuest is a firmware image that does nothing but end its machine, and the arguments and exit code to do it with.
type tinyGuest struct {
	firmware []byte
	args     []string
	exit     int
}

// tinyGuests run on the same board, accelerator and processor as machines do: an accelerator may fail with one processor only.
func tinyGuests(arch string) tinyGuest {
	if arch == "arm64" {
		// PSCI's SYSTEM_OFF by a hypervisor call: mov x0, #0x84000008; hvc #0; then wait for ever.
		code := []byte{0x00, 0x01, 0x80, 0x52, 0x00, 0x80, 0xb0, 0x72, 0x02, 0x00, 0x00, 0xd4, 0x7f, 0x20, 0x03, 0xd5, 0xff, 0xff, 0xff, 0x17}
		return tinyGuest{firmware: append(code, make([]byte, 4096-len(code))...), exit: 0}
	}
	// 64 KiB of firmware end at 4 GiB; the processor starts 16 bytes before: mov al, 0x2a; out 0xf4, al; then halt for ever.
	rom := make([]byte, 64<<10)
	copy(rom[len(rom)-16:], []byte{0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd})
	return tinyGuest{firmware: rom, args: []string{"-device", "isa-debug-exit,iobase=0xf4,iosize=1"}, exit: 0x2a<<1 | 1}
}

// runProbe runs the tiny guest and says why the accelerator cannot be used, or nothing when it can.
func runProbe(ctx context.Context, program string, h host, arch string) string {
	guest := tinyGuests(arch)
	file, err := os.CreateTemp("", "dev-probe-*.rom")
	if err != nil {
		return err.Error()
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(guest.firmware); err != nil {
		return errors.Join(err, file.Close()).Error()
	}
	if err := file.Close(); err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, probeDeadline)
	defer cancel()
	args := append([]string{"-no-user-config", "-nodefaults", "-display", "none", "-m", "32M", "-bios", file.Name()}, platform(h, machine.Spec{Arch: arch})...)
	cmd := exec.CommandContext(ctx, program, append(args, guest.args...)...)
	cmd.SysProcAttr, cmd.WaitDelay = ownGroup(), time.Second
	var complaint strings.Builder
	cmd.Stderr = &complaint
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Sprintf("a test guest hung for %s", probeDeadline)
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == guest.exit:
		return ""
	case complaint.Len() > 0:
		return lastLine(complaint.String())
	case err != nil:
		return "a test guest ended with " + err.Error()
	}
	return "a test guest did not run"
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
