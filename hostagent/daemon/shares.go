// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/fileevents"
	"github.com/seed71221737/dev/hostagent/vhostuser"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// sharing is one share that a virtiofsd serves.
type sharing struct {
	share  Share
	socket string // of the relay, for the VM
	server virtiofsd
	tree   *fileevents.Watcher // tells what the guest must not believe any more; nil: nobody does
	// leaving: the share is being taken from the guest, and its server may end.
	leaving atomic.Bool
	// back is when it was brought back, and dead what the file systems that were lost are called in the guest; both belong to who holds changing.
	back time.Time
	dead []string
	// changing is held by who takes the share from the guest, or gives it to it.
	changing chan struct{}

	mu    sync.Mutex
	relay *vhostuser.Relay
	now   *serving // nil: none has been started
	ended bool     // there is to be none any more
	plain bool     // the guest believes nothing for longer than a second: it cannot be told what has changed
}

// serving is a virtiofsd that runs, or did.
type serving struct {
	cmd  *exec.Cmd
	done chan struct{} // closed at its end
	err  error         // of it
	tail lastLines
	work sync.WaitGroup
}

// change waits for its turn to change where the share is; done ends the turn.
func (s *sharing) change(ctx context.Context) (done func(), err error) {
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// mount is how the guest mounts it.
func (s *sharing) mount() proto.Mount {
	return proto.Mount{Source: s.share.Tag, Target: s.share.Guest, Type: "virtiofs", ReadOnly: s.share.ReadOnly}
}

// startShares starts what serves the host's folders. The machine works without them: what fails becomes a problem.
func (a *agent) startShares(ctx context.Context, l *life) {
	if !slices.ContainsFunc(a.o.Shares, func(s Share) bool { return s.Type == hostagent.ShareVirtiofs }) {
		return
	}
	server, err := findVirtiofsd(ctx)
	if err != nil {
		a.state.problem("shares", &hostagent.Problem{Code: "share-unavailable", Text: fmt.Sprintf("the host's folders are not in the machine: %v", err), Hint: virtiofsdHint(runtime.GOOS)})
		return
	}
	for i, share := range a.o.Shares {
		if share.Type != hostagent.ShareVirtiofs || slices.ContainsFunc(l.shares, func(s *sharing) bool { return s.share.Tag == share.Tag }) {
			continue
		}
		s, err := a.startShare(ctx, l, server, share, a.shareSocket(i))
		if err != nil {
			a.shareProblem(share, err)
			continue
		}
		a.haveShare(l, s)
	}
}

// startSharesAgain serves the folders anew to a VM that runs: they were taken from it for a save that did not come about. Those that are still there stay.
func (a *agent) startSharesAgain(ctx context.Context, l *life) error {
	there := len(l.shares)
	a.startShares(ctx, l)
	p, ok := l.vm.(hostagent.Plugger)
	if !ok {
		return nil
	}
	for _, s := range l.shares[there:] {
		if err := p.Plug(ctx, hostagent.ShareLink{Tag: s.share.Tag, Socket: s.socket}); err != nil {
			a.shareProblem(s.share, err)
		}
	}
	return nil
}

// keepShares goes on with the shares of an earlier life of the same VM which were not taken from it.
func (a *agent) keepShares(l, was *life) {
	for _, s := range was.shares {
		if !s.leaving.Load() {
			a.haveShare(l, s)
		}
	}
}

// haveShare makes a share one of a life's, at the end of which it ends, unless the VM goes on with it.
func (a *agent) haveShare(l *life, s *sharing) {
	l.shares = append(l.shares, s)
	l.onEnd("share "+s.share.Tag, func() error {
		if l.vm != nil && !s.leaving.Load() {
			select {
			case <-l.vm.Done():
			default:
				return nil
			}
		}
		return s.close()
	})
	l.work.Go(func() { a.watchShare(l, s) })
	if s.tree != nil {
		l.work.Go(func() { a.tellShare(l, s) })
	}
}

// unplugShare takes a share from the guest, which could not be saved with it.
func (a *agent) unplugShare(ctx context.Context, l *life, s *sharing) error {
	done, err := s.change(ctx)
	if err != nil {
		return fmt.Errorf("folder %q is being brought back: %w", s.share.Host, err)
	}
	defer done()
	target := s.mount().Target
	var was proto.Unmounted
	err = a.link.call(ctx, proto.MethodUnmount, proto.Unmount{Target: target, Unused: true}, &was)
	if err == nil && len(was.Users) > 0 {
		err = fmt.Errorf("programs in %s have a file or folder of it open", strings.Join(a.containerNames(ctx, was.Users), ", "))
	}
	if err != nil {
		return fmt.Errorf("something in the machine uses it: stop the containers that do, or share it another way (`dev machine edit --share %s,type=fuse --restart %s`): %w", s.share.Host, a.o.Machine, err)
	}
	p, ok := l.vm.(hostagent.Plugger)
	if !ok {
		return nil
	}
	s.leaving.Store(true)
	if was.Device != "" {
		s.dead = append(s.dead, was.Device) // containers still have it
	}
	if err := p.Unplug(ctx, s.share.Tag); err != nil {
		s.leaving.Store(false)
		err = errors.Join(err, a.link.call(ctx, proto.MethodMount, s.mount(), nil))
		dead := slices.Clone(s.dead)
		l.work.Go(func() { a.mendContainers(l, s, dead) })
		return err
	}
	return nil
}

func (a *agent) shareProblem(share Share, err error) {
	a.state.problem("share "+share.Tag, &hostagent.Problem{
		Code: "share-unavailable", Text: fmt.Sprintf("folder %q is not in the machine: %v", share.Host, err),
		Hint: "correct it with `dev machine edit " + a.o.Machine + "`, or start the machine again",
	})
}

// virtiofsd is the program that serves folders, in one of its two kinds.
type virtiofsd struct {
	path string
	// rust is the present one; before it, there was one written in C and shipped with QEMU.
	rust bool
	// readOnly: it can refuse to write by itself.
	readOnly bool
}

// virtiofsdPlaces are where distributions have it; it is no program for users, and rarely in PATH.
var virtiofsdPlaces = []string{"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/kvm/virtiofsd", "/opt/homebrew/libexec/virtiofsd", "/usr/local/libexec/virtiofsd"}

func findVirtiofsd(ctx context.Context) (virtiofsd, error) {
	if runtime.GOOS != "linux" {
		return virtiofsd{}, fmt.Errorf("virtiofs is served by virtiofsd, which there is for Linux only")
	}
	path, err := exec.LookPath("virtiofsd")
	for _, p := range virtiofsdPlaces {
		if err == nil {
			break
		}
		path, err = exec.LookPath(p)
	}
	if err != nil {
		return virtiofsd{}, errors.New("virtiofsd is not installed")
	}
	help, _ := exec.CommandContext(ctx, path, "--help").CombinedOutput() // some kinds exit with 1
	return virtiofsd{path: path, rust: strings.Contains(string(help), "--shared-dir"), readOnly: strings.Contains(string(help), "--readonly")}, nil
}

func virtiofsdHint(goos string) string {
	if goos == "linux" {
		return "install virtiofsd (Debian 12: qemu-system-common; others: virtiofsd), then start the machine again"
	}
	return "copy files with `dev machine scp`, or keep them in volumes"
}

// args is the command line that serves a folder as who runs it: root keeps owners; others need a user namespace for the sandbox, and everything
// in the share is theirs.
func (v virtiofsd) args(share Share, socket string, root bool) []string {
	cache := share.cache()
	if cache == hostagent.CacheWatched { // what changes is told past it
		cache = hostagent.CacheAlways
	}
	if v.rust {
		args := []string{"--socket-path=" + socket, "--shared-dir=" + share.Host, "--cache=" + cache, "--xattr", "--announce-submounts", "--inode-file-handles=never"}
		if root {
			args = append(args, "--sandbox=chroot")
		} else {
			args = append(args, "--sandbox=namespace")
		}
		if share.ReadOnly && v.readOnly {
			args = append(args, "--readonly")
		}
		return args
	}
	if cache == hostagent.CacheNever {
		cache = "none"
	}
	return []string{"-f", "--socket-path=" + socket, "-o", "source=" + escapeOption(share.Host), "-o", "cache=" + cache, "-o", "xattr", "-o", "announce_submounts", "-o", "sandbox=" + cSandbox(root)}
}

// cSandbox: a user's own namespace is one already, and allows no further ones on many hosts.
func cSandbox(root bool) string {
	if root {
		return "namespace"
	}
	return "chroot"
}

// escapeOption keeps commas in a path from ending an option.
func escapeOption(path string) string { return strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(path) }

// startShare serves one folder, and watches what does.
func (a *agent) startShare(ctx context.Context, l *life, v virtiofsd, share Share, socket string) (*sharing, error) {
	share, err := share.withGuest(runtime.GOOS)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(share.Host); err != nil || !info.IsDir() {
		return nil, errors.Join(errors.New("it is no folder"), err)
	}
	s := &sharing{share: share, socket: socket, server: v, dead: slices.Clone(l.notes.Lost[share.Tag]), changing: make(chan struct{}, 1)}
	if share.cache() == hostagent.CacheWatched {
		s.tree = a.trees[share.Tag]
		s.plain = s.tree == nil
	}
	if err := a.serveShare(ctx, s); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends the relay and the server.
func (s *sharing) close() error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	return s.disconnect()
}

// disconnect ends the relay and the server, of which there may be others later.
func (s *sharing) disconnect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.relay != nil {
		err = s.relay.Close()
	}
	if s.now != nil {
		_ = s.now.cmd.Process.Kill() // nobody has anything left to write; it may have ended by itself
		<-s.now.done
		s.now.work.Wait()
	}
	s.relay, s.now = nil, nil
	return errors.Join(err, removeIfThere(s.socket), removeIfThere(s.served()))
}

// served is the server's own socket, which the relay connects to.
func (s *sharing) served() string { return strings.TrimSuffix(s.socket, ".sock") + "d.sock" }

// serveShare starts a share's server, and the relay that the VM reaches it through.
func (a *agent) serveShare(ctx context.Context, s *sharing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errStopping
	}
	if err := removeIfThere(s.served()); err != nil {
		return err
	}
	// It ends with the relay, whose connection it serves, or with this process.
	v, root, share := s.server, os.Geteuid() == 0, s.share
	if s.plain {
		share.Cache = hostagent.CacheAuto
	}
	cmd := exec.Command(v.path, v.args(share, s.served(), root)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	cmd.Dir = filepath.Dir(s.socket)
	sandboxed(cmd, root, v.rust)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start virtiofsd: %w", err)
	}
	p := &serving{cmd: cmd, done: make(chan struct{})}
	p.work.Go(func() { a.logLines(out, "virtiofsd "+s.share.Tag, &p.tail) })
	p.work.Go(func() {
		p.err = cmd.Wait()
		_ = in.Close() // never fails
		close(p.done)
	})
	s.now = p
	if err := awaitSocket(ctx, s.served(), p.done); err != nil {
		return fmt.Errorf("virtiofsd did not start: %w: %s", errors.Join(err, p.end()), &p.tail)
	}
	var err error
	s.relay, err = vhostuser.Listen(s.socket, s.served(), a.log)
	return err
}

// end is why it ended; nil while it runs.
func (p *serving) end() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// cache is how much of a share by virtiofs is believed.
func (s Share) cache() string { return cmp.Or(s.Cache, hostagent.CacheAuto) }

// withGuest completes where a share is in the guest.
func (s Share) withGuest(goos string) (Share, error) {
	var err error
	if s.Guest == "" {
		s.Guest, err = hostagent.GuestPath(goos, s.Host)
	}
	return s, err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// awaitSocket waits until a server has made its socket, or ended. There is no event for it that all systems have.
func awaitSocket(ctx context.Context, socket string, done <-chan struct{}) error {
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-done:
			return errors.New("it ended")
		default:
		}
		if err := pause(ctx, retryPause/10); err != nil {
			return err
		}
	}
}

// logLines logs what a program says, and keeps the end of it.
func (a *agent) logLines(r io.Reader, name string, tail *lastLines) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		tail.add(lines.Text())
		a.log.Info(lines.Text(), "program", name)
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long
}
