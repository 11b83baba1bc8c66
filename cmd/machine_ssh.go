// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/access"
)

// login opens the way into a machine that runs. The caller closes it.
func (m *machines) login(ctx context.Context, one *machine.Machine) (*ssh.Client, error) {
	ask, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	t, err := one.SSHTarget(ask)
	if err != nil {
		return nil, err
	}
	return access.Dial(ctx, access.Login{Machine: one.Name, Address: t.Address, User: t.User, Key: t.Key, HostKey: t.HostKey})
}

// shellOptions are the options of ssh that mean something here.
type shellOptions struct{ tty, noTTY bool }

// parse takes the options off the words after the machine's name, as OpenSSH's client reads them.
func (o *shellOptions) parse(words []string) (command []string, err error) {
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		switch words[0] {
		case "-t", "-tt":
			o.tty = true
		case "-T":
			o.noTTY = true
		case "--":
			return words[1:], nil
		default:
			return nil, withHint(fmt.Errorf("ssh: option %q is not there", words[0]), "for all that OpenSSH can: dev machine ssh-config MACHINE > FILE, then ssh -F FILE dev-machine-MACHINE")
		}
		words = words[1:]
	}
	return words, nil
}

// runInMachine runs a command for the machine's shell, or a login shell, with the user's terminal where that makes sense.
func (m *machines) runInMachine(ctx context.Context, one *machine.Machine, command string, o shellOptions) error {
	client, err := m.login(ctx, one)
	if err != nil {
		return err
	}
	defer client.Close() // what it did is done
	s := access.Session{Command: command, In: m.in, Out: m.out, Err: m.err, Term: m.getenv("TERM")}
	if (command == "" || o.tty) && !o.noTTY {
		if terminal := m.console(); terminal != nil {
			s.Terminal = terminal
		}
	}
	err = access.Run(ctx, client, s)
	if exit, ok := errors.AsType[*access.ExitError](err); ok && exit.Signal == "" {
		return exitWith(exit.Status)
	}
	if err != nil {
		return fmt.Errorf("machine %q: %w", one.Name, err)
	}
	return nil
}

func newMachineSSHCommand(m *machines) *cobra.Command {
	c := &cobra.Command{
		Use:   "ssh MACHINE [-t|-T] [COMMAND...]",
		Short: "Log in to a machine, or run a command in it",
		Long: `Log in to a machine as root, or run a command in it; without a name in default. It
needs no ssh program and heeds none of its settings. The exit status is the
command's.`,
		Example: `  dev machine ssh box
  dev machine ssh box df -h
  dev machine ssh box -t top`,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			var name, rest []string
			if len(args) > 0 {
				name, rest = args[:1], args[1:]
			}
			one, err := m.one(name)
			if err != nil {
				return err
			}
			var o shellOptions
			command, err := o.parse(rest)
			if err != nil {
				return err
			}
			return m.runInMachine(c.Context(), one, strings.Join(command, " "), o)
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func newMachineShellCommand(m *machines) *cobra.Command {
	var workdir string
	c := &cobra.Command{
		Use:   "shell [OPTIONS] [MACHINE [COMMAND [ARGS...]]]",
		Short: "Open a shell in a machine, in the folder where you stand",
		Long: `Open a shell in a machine, or run a command in it, in the folder where you stand if
the machine shares it. Unlike with ssh, arguments stay apart as you gave them.`,
		Example:           "  dev machine shell box ls -l \"a file\"",
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			var name, command []string
			if len(args) > 0 {
				name, command = args[:1], args[1:]
			}
			one, err := m.one(name)
			if err != nil {
				return err
			}
			if workdir == "" {
				workdir, _ = guestFolder(one.Spec.Shares, m.cwd, runtime.GOOS)
			}
			return m.runInMachine(c.Context(), one, shellLine(workdir, command), shellOptions{tty: true})
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringVarP(&workdir, "workdir", "w", "", "`FOLDER` in the machine (default: where you stand, if it is shared)")
	return c
}

// shellLine is what the machine's shell runs to get a command, or a login shell, in a folder.
func shellLine(workdir string, command []string) string {
	line := access.Quote(command)
	if len(command) == 0 {
		line = `exec "${SHELL:-/bin/sh}" -l`
	}
	if workdir == "" {
		return line
	}
	return "cd " + access.Quote([]string{workdir}) + " && " + line
}

// guestFolder is where a folder of the host is in a machine with these shares; ok is false if it is in none.
func guestFolder(shares []machine.Share, folder, goos string) (guest string, ok bool) {
	at, err := hostagent.GuestPath(goos, folder)
	if err != nil {
		return "", false
	}
	longest := -1
	for _, s := range shares {
		from, err := hostagent.GuestPath(goos, s.Host)
		if err != nil {
			continue
		}
		to := from
		if s.Guest != "" {
			to = s.Guest
		}
		rest, inside := within(from, at)
		if inside && len(from) > longest {
			longest, guest, ok = len(from), path.Join(to, rest), true
		}
	}
	return guest, ok
}

// within is a slash-separated path from a folder that it is in.
func within(folder, name string) (rest string, ok bool) {
	if folder == "/" || name == folder {
		return strings.TrimPrefix(name, folder), true
	}
	return strings.CutPrefix(name, folder+"/")
}

func newMachineSSHConfigCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-config [MACHINE]",
		Short: "Print settings with which OpenSSH and editors reach a machine",
		Long: `Print settings for OpenSSH's client, and all that reads its settings, such as
editors' remote modes, rsync and docker -H ssh://. The port may be another one
after a restart: print them anew then.`,
		Example: `  dev machine ssh-config box > ~/.ssh/dev-box
  ssh -F ~/.ssh/dev-box dev-machine-box`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			one, err := m.one(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), answerWait)
			defer cancel()
			t, err := one.SSHTarget(ctx)
			if err != nil {
				return err
			}
			text, err := sshConfig(t)
			if err != nil {
				return err
			}
			return m.printLines([]string{text})
		},
	}
}

// sshConfig is a machine as ssh_config(5) has it.
func sshConfig(t machine.SSHTarget) (string, error) {
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil {
		return "", fmt.Errorf("read the address of the machine's SSH server: %w", err)
	}
	quote := func(path string) string { return `"` + strings.ReplaceAll(path, `\`, "/") + `"` }
	return strings.Join([]string{
		"Host " + t.HostKeyAlias,
		"  HostName " + host,
		"  Port " + port,
		"  User " + t.User,
		"  IdentityFile " + quote(t.KeyFile),
		"  IdentitiesOnly yes",
		"  HostKeyAlias " + t.HostKeyAlias,
		"  UserKnownHostsFile " + quote(t.KnownHosts),
		"  StrictHostKeyChecking yes",
		"  BatchMode yes",
	}, "\n"), nil
}

// portOf is the port of an address, 0 if it has none.
func portOf(address string) int {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}

type machineScp struct{ recursive, delta, quiet bool }

func newMachineScpCommand(m *machines) *cobra.Command {
	var o machineScp
	c := &cobra.Command{
		Use:   "scp [OPTIONS] [[USER@]MACHINE:]SOURCE [[USER@]MACHINE:]TARGET",
		Short: "Copy files to, from and between machines",
		Example: `  dev machine scp notes.txt box:
  dev machine scp -r box:/etc/docker ./docker-settings
  dev machine scp one:/data/dump.sql two:/data/`,
		Args: takes(2, 2, "SOURCE TARGET"),
		RunE: func(c *cobra.Command, args []string) error { return m.runScp(c.Context(), o, args[0], args[1]) },
	}
	f := c.Flags()
	f.BoolVarP(&o.recursive, "recursive", "r", false, "copy folders with what is in them")
	f.BoolVarP(&o.delta, "delta", "d", false, "leave out files that are there with the same size and time")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not tell which files are copied")
	return c
}

func (m *machines) runScp(ctx context.Context, o machineScp, source, target string) error {
	from, closeFrom, fromPath, err := m.tree(ctx, source)
	if err != nil {
		return err
	}
	defer closeFrom()
	to, closeTo, toPath, err := m.tree(ctx, target)
	if err != nil {
		return err
	}
	defer closeTo()
	copying := access.CopyOptions{Recursive: o.recursive, Delta: o.delta}
	if !o.quiet {
		copying.File = func(name string, size int64) { m.say(fmt.Sprintf("%s  %s", name, units.HumanSize(float64(size)))) }
	}
	return access.Copy(ctx, from, fromPath, to, toPath, copying)
}

// tree opens the files of the host or of a machine, as an argument of scp names them.
func (m *machines) tree(ctx context.Context, text string) (t *access.Tree, closeTree func(), name string, err error) {
	p, err := access.ParsePlace(text, runtime.GOOS)
	if err != nil {
		return nil, nil, "", err
	}
	if p.Machine == "" {
		name, err = m.path(p.Path)
		return access.Host(), func() {}, name, err
	}
	if p.User != "" && p.User != "root" {
		return nil, nil, "", withHint(fmt.Errorf("copy %q: machines have no user %q", text, p.User), "leave the user out: it is root")
	}
	one, err := m.one([]string{p.Machine})
	if err != nil {
		return nil, nil, "", err
	}
	client, err := m.login(ctx, one)
	if err != nil {
		return nil, nil, "", err
	}
	t, closeFiles, err := access.Guest(client)
	if err != nil {
		return nil, nil, "", errors.Join(err, client.Close())
	}
	return t, func() { _, _ = closeFiles(), client.Close() }, p.Path, nil
}

func newMachineMountCommand(m *machines) *cobra.Command {
	var unmount bool
	c := &cobra.Command{
		Use:   "mount [OPTIONS] [MACHINE:]PATH [MOUNTPOINT]",
		Short: "Mount a machine's folder on this host with SSHFS",
		Long: `Mount a folder of a machine on this host, at the same path if no other is given. It
needs the program sshfs. Folders of this host are in the machine by themselves:
see dev machine edit --share.`,
		Example: `  dev machine mount box:/var/lib/docker/volumes ~/volumes
  dev machine mount -u box:/var/lib/docker/volumes ~/volumes`,
		Args: takes(1, 2, "[MACHINE:]PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := access.ParsePlace(args[0], runtime.GOOS)
			if err != nil {
				return err
			}
			point := p.Path
			if len(args) > 1 {
				point = args[1]
			}
			if point, err = m.path(point); err != nil {
				return err
			}
			if unmount {
				return m.unmount(c.Context(), point)
			}
			return m.mountSSHFS(c.Context(), p, point)
		},
	}
	c.Flags().BoolVarP(&unmount, "unmount", "u", false, "unmount instead")
	return c
}

func (m *machines) mountSSHFS(ctx context.Context, p access.Place, point string) error {
	var names []string
	if p.Machine != "" {
		names = []string{p.Machine}
	}
	one, err := m.one(names)
	if err != nil {
		return err
	}
	sshfs, err := exec.LookPath("sshfs")
	if err != nil {
		return withHint(errors.New("mount: the program sshfs is not installed"), "install it, or copy files with %s", m.typed("scp"))
	}
	ask, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	t, err := one.SSHTarget(ask)
	if err != nil {
		return err
	}
	return m.runProgram(ctx, sshfs, sshfsArgs(t, p.Path, point)...)
}

// sshfsArgs mount a machine's folder without any of the user's SSH settings.
func sshfsArgs(t machine.SSHTarget, folder, point string) []string {
	host, port, _ := net.SplitHostPort(t.Address) // the agent's own address
	return []string{
		t.User + "@" + host + ":" + folder, point, "-F", os.DevNull, "-p", port,
		"-o", "IdentityFile=" + t.KeyFile, "-o", "IdentitiesOnly=yes", "-o", "HostKeyAlias=" + t.HostKeyAlias,
		"-o", "UserKnownHostsFile=" + t.KnownHosts, "-o", "StrictHostKeyChecking=yes", "-o", "reconnect",
	}
}

func (m *machines) unmount(ctx context.Context, point string) error {
	for _, c := range [][]string{{"fusermount3", "-u", point}, {"fusermount", "-u", point}, {"umount", point}} {
		if program, err := exec.LookPath(c[0]); err == nil {
			return m.runProgram(ctx, program, c[1:]...)
		}
	}
	return errors.New("unmount: neither fusermount nor umount is installed")
}

// runProgram runs a program that speaks for itself.
func (m *machines) runProgram(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = m.in, m.out, m.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

func newMachineTopCommand(m *machines) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:               "top [OPTIONS] [MACHINE]",
		Short:             "Show what runs in a machine and what it uses",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			one, err := m.one(args)
			if err != nil {
				return err
			}
			command := "busybox top"
			if once || m.console() == nil {
				command = "busybox top -b -n 1"
			}
			return m.runInMachine(c.Context(), one, command, shellOptions{tty: !once})
		},
	}
	c.Flags().BoolVar(&once, "once", false, "show it once, and end")
	return c
}
