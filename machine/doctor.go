// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/internal/finding"
	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/vmimage"
)

// Checks look at all that can go wrong with the machine on this host. They work in whatever state it is, and change nothing; repairs take its lock.
func (m *Machine) Checks() []finding.Check {
	one := func(name, about string, look func(context.Context) []finding.Finding) finding.Check {
		return finding.Check{Name: name, About: about, Run: look}
	}
	return []finding.Check{
		one("files", "its settings, disk, keys and identity", m.findFiles),
		one("access", "who may read and write them", m.findModes),
		one("processes", "its host agent, VM, helpers and sockets", m.findProcesses),
		one("changes", "upgrades, restores and shrinks that were interrupted", m.findChanges),
		one("memory", "its saved memory", m.findMemory),
		one("snapshots", "its snapshots", m.findSnapshots),
		one("image", "the image that it boots", m.findImage),
		one("certificates", "those of its engine's TCP socket", m.findCertificates),
		one("loopback ports", "of SSH and of the engine's TCP socket", m.findPorts),
		one("driver", "the hypervisor, and how it runs processors", m.findDriver),
		one("guest", "what its host agent tells of it", m.findGuest),
	}
}

// broken is a finding of something that does not work.
func broken(what, cause, fix string) finding.Finding {
	return finding.Finding{Severity: finding.Broken, What: what, Cause: cause, Fix: fix}
}

// doubtful is a finding of something that may not work.
func doubtful(what, cause, fix string) finding.Finding {
	return finding.Finding{Severity: finding.Doubtful, What: what, Cause: cause, Fix: fix}
}

// with adds a repair to a finding.
func with(f finding.Finding, text string, repair func(context.Context) error) finding.Finding {
	f.RepairText, f.Repair = text, repair
	return f
}

// of turns an error into a finding: its Hint is the fix, where it has one.
func of(err error, what, fix string) finding.Finding {
	if h := hintOf(err); h != "" {
		fix = h
	}
	return broken(what, err.Error(), fix)
}

// whileStopped does something to the machine's files under its lock, and refuses while an agent uses them.
func (m *Machine) whileStopped(ctx context.Context, do func(ctx context.Context) error) error {
	return m.underBareLock(ctx, nil, func() error {
		runs, err := m.agentRuns(ctx)
		if err == nil && runs {
			err = &RunningError{Name: m.Name, What: "repair it"}
		}
		if err != nil {
			return err
		}
		return do(ctx)
	})
}

func (m *Machine) findFiles(ctx context.Context) []finding.Finding {
	var found []finding.Finding
	if _, err := readSpec(m.Dir); err != nil {
		found = append(found, m.lostSpec(err))
	} else if m.store.Drivers[m.Spec.Driver] == nil {
		found = append(found, broken("its driver is not known", m.store.unknownDriver(m.Spec.Driver).Error(), "use the dev that made the machine"))
	}
	if _, err := os.Stat(m.Dir.DataDisk()); err != nil {
		found = append(found, broken("its data disk cannot be used", err.Error(),
			fmt.Sprintf("bring the file back from a backup, or `dev machine snapshot restore %s SNAPSHOT`; dev never makes an empty disk in its place", m.Name)))
	}
	for file, what := range map[string]string{m.Dir.SSHKey(): "the key that logs in to it", m.Dir.HostKey(): "the key that it answers with"} {
		if _, _, err := readKey(file); err != nil {
			found = append(found, with(broken(what+" cannot be used", err.Error(), "make new keys: the machine learns them at its next boot"),
				"make new keys, and drop its saved memory, which knows the old ones", m.renewKeys))
			break
		}
	}
	if _, err := m.Identity(); err != nil {
		found = append(found, with(broken("its identity is lost", err.Error(), "give it a new one: the guest gets another MAC address and machine-id"),
			"give it a new identity, and drop its saved memory, which has the old one", m.renewIdentity))
	}
	if err := m.Dir.checkSockets(); err != nil {
		found = append(found, of(err, "its folder is too deep for sockets", ""))
	}
	return found
}

// lostSpec is a machine.yaml that cannot be read. The one of the newest snapshot comes nearest to it.
func (m *Machine) lostSpec(err error) finding.Finding {
	f := broken("its settings cannot be read", err.Error(), "repair machine.yaml in "+string(m.Dir))
	if data, readErr := os.ReadFile(m.Dir.Spec()); readErr == nil && specVersion(data) > SpecVersion {
		f.Fix = "use the dev that wrote them, or a newer one"
		return f
	}
	name, spec := m.specOfSnapshot()
	if name == "" {
		f.Fix += "; no snapshot has it"
		return f
	}
	return with(f, fmt.Sprintf("put the settings of snapshot %q in place; the file as it is stays as machine.yaml.bak", name), func(ctx context.Context) error {
		return m.whileStopped(ctx, func(context.Context) error {
			if _, err := readSpec(m.Dir); err == nil {
				return nil // somebody was faster
			}
			if err := os.Rename(m.Dir.Spec(), m.Dir.Spec()+".bak"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return writeSpec(m.Dir, spec)
		})
	})
}

// specOfSnapshot is the spec in the newest snapshot that has one; "" where none has.
func (m *Machine) specOfSnapshot() (name string, spec Spec) {
	list, err := m.Snapshots()
	if err != nil {
		return "", Spec{}
	}
	for _, snap := range list {
		if parsed, err := ParseSpec(snap.Name, []byte(snap.Spec)); err == nil && snap.Problem == nil {
			name, spec = snap.Name, parsed
		}
	}
	return name, spec
}

// renewKeys makes new keys. What is there of the old ones is overwritten.
func (m *Machine) renewKeys(ctx context.Context) error {
	return m.whileStopped(ctx, func(ctx context.Context) error {
		if _, err := m.Keys(); err == nil {
			return nil
		}
		if err := m.forgetMemory(ctx, "the machine has new keys"); err != nil {
			return err
		}
		return makeKeys(m.Dir, m.Name)
	})
}

func (m *Machine) renewIdentity(ctx context.Context) error {
	return m.whileStopped(ctx, func(ctx context.Context) error {
		if _, err := m.Identity(); err == nil {
			return nil
		}
		if err := m.forgetMemory(ctx, "the machine has a new identity"); err != nil {
			return err
		}
		return makeIdentity(m.Dir)
	})
}

func (m *Machine) findModes(context.Context) []finding.Finding {
	var found []finding.Finding
	if f, err := os.OpenFile(m.Dir.Spec(), os.O_RDWR, 0); err == nil {
		_ = f.Close() // nothing was written
	} else if !errors.Is(err, fs.ErrNotExist) && (runtime.GOOS == "windows" || !errors.Is(err, fs.ErrPermission)) {
		found = append(found, broken("its folder cannot be written", err.Error(), "make the file system writable, or set DEV_HOME to a folder that is"))
	}
	if runtime.GOOS == "windows" {
		return found // access is by the folder's list there
	}
	names := map[string]fs.FileMode{string(m.Dir): 0o700, m.Dir.Spec(): 0, m.Dir.DataDisk(): 0, m.Dir.SSHKey(): 0o600, m.Dir.HostKey(): 0o600}
	for _, name := range []string{caKeyName, clientKeyName, serverKeyName} {
		names[filepath.Join(m.Dir.TLS(), name)] = 0o600
	}
	for name, secret := range names {
		info, err := os.Stat(name)
		if err != nil {
			continue // another check's
		}
		own := fs.FileMode(0o600)
		if info.IsDir() {
			own = 0o700
		}
		mode := info.Mode().Perm()
		switch {
		case mode&own != own:
			found = append(found, with(broken(name+" is closed to its owner", "its mode is "+mode.String(), "chmod u+rw "+name),
				fmt.Sprintf("give %s mode %o", name, mode|own), func(context.Context) error { return os.Chmod(name, mode|own) }))
		case secret != 0 && mode&^secret != 0:
			found = append(found, with(doubtful(name+" is open to others", "its mode is "+mode.String()+"; OpenSSH refuses such keys", fmt.Sprintf("chmod %o %s", secret, name)),
				fmt.Sprintf("give %s mode %o", name, secret), func(context.Context) error { return os.Chmod(name, secret) }))
		}
	}
	return found
}

func (m *Machine) findProcesses(ctx context.Context) []finding.Finding {
	status := m.look(ctx)
	for _, problem := range status.Problems {
		var hung *hungError
		var left *orphanError
		if errors.As(problem, &hung) {
			return []finding.Finding{with(of(problem, "its host agent hangs", ""), "kill its host agent, and power its VM off in order", m.endHung)}
		}
		if errors.As(problem, &left) {
			return []finding.Finding{with(of(problem, "its VM runs without a host agent", ""), "power its VM off in order", m.clearUp)}
		}
	}
	runs, err := m.agentRuns(ctx)
	switch {
	case err != nil:
		return []finding.Finding{of(err, "its host agent cannot be looked at", "see the cause")}
	case runs && status.Phase.Up():
		return m.lostSockets(status)
	case runs:
		return nil
	}
	if vm, err := m.orphan(ctx); err == nil && vm != nil {
		return []finding.Finding{with(of(&orphanError{name: m.Name}, "its VM runs without a host agent", ""), "power its VM off in order", m.clearUp)}
	}
	var found []finding.Finding
	if helpers, err := m.helpers(ctx); err == nil && len(helpers) > 0 {
		found = append(found, with(doubtful(fmt.Sprintf("%d servers of its shared folders are left over", len(helpers)), "their VM was killed before it used them", "kill them"),
			"kill them", m.clearUp))
	}
	if m.leftovers() {
		found = append(found, with(doubtful("sockets are left in its folder", "its processes were killed, or the computer went down; the next start removes them", "remove them"),
			"remove its stale sockets", m.clearUp))
	}
	return found
}

// lostSockets finds that what a machine that runs serves is gone from its folder, as after a cleaner of temporary files.
func (m *Machine) lostSockets(status Status) []finding.Finding {
	path, ok := strings.CutPrefix(status.Endpoint, "unix://")
	if _, err := os.Lstat(path); !ok || err == nil {
		return nil
	}
	return []finding.Finding{broken("its engine's socket is gone: "+path, "something removed the file while the machine runs", "dev machine restart "+m.Name)}
}

// endHung ends an agent that does not answer, and what it leaves.
func (m *Machine) endHung(ctx context.Context) error {
	return m.underBareLock(ctx, nil, func() error {
		if status := m.look(ctx); status.Phase != PhaseBroken {
			return nil
		}
		if err := m.killAgent(ctx); err != nil {
			return err
		}
		return m.clear(ctx, stopGrace, nil)
	})
}

// clearUp ends what runs without an agent and removes stale sockets.
func (m *Machine) clearUp(ctx context.Context) error {
	return m.whileStopped(ctx, func(ctx context.Context) error { return m.clear(ctx, stopGrace, nil) })
}

func (m *Machine) findChanges(context.Context) []finding.Finding {
	unlock, free := m.store.tryLock(m.Name)
	if !free {
		return nil // a command is at work
	}
	defer unlock()
	j, err := readJournal(m.Dir)
	var damaged *JournalError
	switch {
	case errors.As(err, &damaged):
		f := of(err, "its journal cannot be used", "")
		if damaged.newer {
			return []finding.Finding{f}
		}
		return []finding.Finding{with(f, "move journal.json to journal.json.bak: the machine stays as it is now", func(ctx context.Context) error {
			return m.whileStopped(ctx, func(context.Context) error { return os.Rename(m.Dir.Journal(), m.Dir.Journal()+".bak") })
		})}
	case err != nil:
		return []finding.Finding{of(err, "its journal cannot be read", "see the cause")}
	case j != nil:
		return []finding.Finding{with(broken(j.Kind.what()+" was interrupted", fmt.Sprintf("it came to step %q, begun %s", j.Step, j.Began.Local().Format(time.DateTime)), "let the next command finish it: dev machine start "+m.Name),
			"finish it, or take it back", m.finishChange)}
	}
	var found []finding.Finding
	drafts, _ := filepath.Glob(filepath.Join(m.Dir.Snapshots(), tmpPrefix+"*")) // its only error is of the pattern
	if _, err := os.Stat(m.Dir.file(newDisk)); err == nil {
		drafts = append(drafts, m.Dir.file(newDisk))
	}
	for _, name := range drafts {
		found = append(found, doubtful(name+" is left over", "a command was interrupted while it copied the disk", "remove it"))
	}
	if len(found) > 0 {
		found[0] = with(found[0], "remove what interrupted copies of its disk left", func(ctx context.Context) error {
			return m.underBareLock(ctx, nil, func() error {
				if j, err := readJournal(m.Dir); j != nil || err != nil {
					return err
				}
				return m.sweepChange("")
			})
		})
	}
	return found
}

// finishChange brings to an end what was interrupted.
func (m *Machine) finishChange(ctx context.Context) error {
	return m.underLock(ctx, nil, func() error {
		_, err := m.finishUpgrade(ctx, false, false, nil)
		return err
	})
}

func (m *Machine) findMemory(ctx context.Context) []finding.Finding {
	runs, err := m.agentRuns(ctx)
	if err != nil || runs {
		return nil // it is the agent's
	}
	drop := func(f finding.Finding, why string) []finding.Finding {
		f.Fix = "let it go: the machine boots instead"
		return []finding.Finding{with(f, "drop its saved memory", func(ctx context.Context) error {
			return m.whileStopped(ctx, func(ctx context.Context) error { return m.forgetMemory(ctx, why) })
		})}
	}
	state, err := saved.Read(m.Dir.Memory())
	switch {
	case err != nil:
		return drop(doubtful("its saved memory cannot be used", err.Error(), ""), "it could not be read")
	case state == nil:
		if left, _ := filepath.Glob(filepath.Join(m.Dir.Memory(), "*.mem")); len(left) > 0 { // its only error is of the pattern
			return drop(doubtful("a file of saved memory is left over", "the machine or this computer went down while it was written or read", ""), "nothing names it")
		}
		return nil
	}
	what := "its saved memory cannot be used"
	if state.Suspended {
		what += ": what ran in it is lost"
	}
	facts, err := m.MemoryFacts(ctx)
	if err != nil {
		return nil // another check says why
	}
	if why := state.Fits(m.Dir.DataDisk(), facts); why != "" {
		return drop(doubtful(what, why, ""), why)
	}
	if err := saved.Verify(ctx, state.Path()); err != nil && ctx.Err() == nil {
		return drop(doubtful(what, err.Error(), ""), "it is damaged")
	}
	return nil
}

func (m *Machine) findSnapshots(context.Context) []finding.Finding {
	list, err := m.Snapshots()
	if err != nil {
		return []finding.Finding{of(err, "its snapshots cannot be listed", "see the cause")}
	}
	var found []finding.Finding
	for _, snap := range list {
		if snap.Problem != nil {
			f := of(snap.Problem, fmt.Sprintf("snapshot %q cannot be restored", snap.Name), "")
			f.Fix = fmt.Sprintf("if it is of no use: dev machine snapshot rm %s %s", m.Name, snap.Name)
			found = append(found, f)
		}
	}
	return found
}

func (m *Machine) findImage(context.Context) []finding.Finding {
	if m.Spec.Image == "" {
		return nil // its settings cannot be read
	}
	const fix = "`dev machine image pull` or `dev machine image build` brings it again, if it is the same; else `dev machine upgrade`"
	image, err := m.store.Images.Find(m.Spec.Image, m.Spec.Arch)
	if err != nil {
		return []finding.Finding{broken("its image is gone", err.Error(), fix)}
	}
	err = image.Problem
	if err == nil {
		_, err = vmimage.Verify(image.Dir)
	}
	if err != nil {
		return []finding.Finding{broken("its image is damaged", err.Error(), fix)}
	}
	return nil
}

func (m *Machine) findCertificates(context.Context) []finding.Finding {
	var cause string
	for _, names := range [][2]string{{caName, caKeyName}, {serverName, serverKeyName}, {clientName, clientKeyName}} {
		p, err := readPair(m.Dir.TLS(), names[0], names[1])
		switch now := time.Now(); {
		case err != nil:
			cause = err.Error()
		case now.After(p.cert.NotAfter):
			cause = fmt.Sprintf("%s expired on %s", names[0], p.cert.NotAfter.Local().Format(time.DateOnly))
		case now.Before(p.cert.NotBefore):
			cause = fmt.Sprintf("%s begins on %s: was this computer's clock wrong, or is it?", names[0], p.cert.NotBefore.Local().Format(time.DateOnly))
		default:
			continue
		}
		break
	}
	if cause == "" {
		return nil
	}
	return []finding.Finding{with(broken("its certificates cannot be used", cause, "make new ones: dev machine regenerate-certs "+m.Name), "make new certificates", func(ctx context.Context) error {
		return m.underBareLock(ctx, nil, func() error { _, err := m.certificates(certificateRequest{}); return err })
	})}
}

func (m *Machine) findPorts(ctx context.Context) []finding.Finding {
	ports, err := m.Dir.ReadPorts()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []finding.Finding{with(doubtful("its loopback ports are forgotten", err.Error(), "let it choose others at the next start"), "remove ports.json", func(ctx context.Context) error {
			return m.underBareLock(ctx, nil, func() error { return os.Remove(m.Dir.Ports()) })
		})}
	}
	if runs, err := m.agentRuns(ctx); err != nil || runs {
		return nil // it has them
	}
	var found []finding.Finding
	for what, port := range map[string]int{"SSH": ports.SSH, "the engine's TCP socket": ports.TCP} {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close() // it was only tried
			continue
		}
		found = append(found, doubtful(fmt.Sprintf("port %d, where %s was, is taken", port, what), err.Error(),
			"end what has it; otherwise the machine takes another port, which `dev machine ssh-config` and `dev machine env --tcp` tell"))
	}
	return found
}

func (m *Machine) findDriver(ctx context.Context) []finding.Finding {
	driver := m.store.Drivers[m.Spec.Driver]
	if driver == nil {
		return nil // another check says so
	}
	err := driver.Check(ctx, m.Spec)
	if p, ok := driver.(Prober); ok {
		if found := probed(p.Probe(ctx, m.Spec)); len(found) > 0 && (err == nil || found[0].Repair != nil) {
			return found
		}
	}
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return []finding.Finding{of(&CheckError{Driver: m.Spec.Driver, Err: err}, "it cannot run on this host", "see the cause")}
}

// probed tells what a driver found out about its accelerator. An error is for the driver's Check to tell.
func probed(p Probe, err error) []finding.Finding {
	if err != nil || p.Why == "" {
		return nil
	}
	f := doubtful("machines run in software emulation, several times slower", p.Why, "give this user access to the host's virtualization, or switch it on in the firmware")
	if p.Forget == nil {
		return []finding.Finding{f}
	}
	f.What, f.Severity = fmt.Sprintf("%s worked and does not any more", strings.ToUpper(p.Accelerator)), finding.Broken
	return []finding.Finding{with(f, "forget that it worked: machines run in software emulation until it does again", func(context.Context) error { return p.Forget() })}
}

// mostClockOffset is how far a guest's clock may be off before programs notice.
const mostClockOffset = 2 * time.Second

func (m *Machine) findGuest(ctx context.Context) []finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	status, err := m.Agent().Status(ctx)
	if err != nil {
		return nil // another check's
	}
	var found []finding.Finding
	for _, p := range status.Problems {
		fix := p.Hint
		if fix == "" {
			fix = "see `dev machine logs " + m.Name + "`"
		}
		found = append(found, broken(p.Text, "its host agent says so: "+p.Code, fix))
	}
	if status.Metrics != nil && status.Metrics.ClockOffset.Abs() > mostClockOffset {
		found = append(found, broken(fmt.Sprintf("the guest's clock is %s off", status.Metrics.ClockOffset.Round(time.Millisecond)),
			"this computer slept, or its clock was set; it is put right within seconds, or the guest hangs", "dev machine restart "+m.Name))
	}
	return found
}

// Checks look at what belongs to no machine: what commands that were cut off left in the store.
func (s *Store) Checks() []finding.Check {
	return []finding.Check{{Name: "leftovers", About: "machines that were half made or half removed", Run: func(ctx context.Context) []finding.Finding {
		var found []finding.Finding
		entries, err := os.ReadDir(s.Dir)
		if err != nil {
			return nil // there are no machines
		}
		for _, e := range entries {
			rest, ok := strings.CutPrefix(e.Name(), tmpPrefix)
			end := strings.LastIndexByte(rest, '-')
			if !ok || end < 0 {
				continue
			}
			unlock, free := s.tryLock(rest[:end])
			if !free {
				continue // a command is at work
			}
			unlock()
			found = append(found, with(doubtful(filepath.Join(s.Dir, e.Name())+" is left over", fmt.Sprintf("a command on machine %q was cut off", rest[:end]), "remove it"),
				"remove "+filepath.Join(s.Dir, e.Name()), func(context.Context) error {
					s.sweepOne(e.Name(), rest[:end], "")
					return atomicfile.SyncDir(s.Dir)
				}))
		}
		return found
	}}}
}
