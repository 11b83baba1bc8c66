// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine"
)

// tell shows what happens to machines, in docker-machine's form.
func (m *machines) tell() machine.Sink {
	var mu sync.Mutex
	return func(e machine.Event) {
		mu.Lock()
		defer mu.Unlock()
		text := fmt.Sprintf("(%s) %s", e.Machine, e.Text)
		switch {
		case e.Text == "":
		case e.Warning && e.Hint != "":
			m.warn(text + ": " + e.Hint)
		case e.Warning:
			m.warn(text)
		default:
			m.say(text)
		}
	}
}

// showStartFailure shows what the console and the host agent said last before a start failed.
func (m *machines) showStartFailure(err error) {
	failed, ok := errors.AsType[*machine.StartError](err)
	if !ok {
		return
	}
	for _, part := range []struct {
		name  string
		lines []string
	}{{"console", failed.Console}, {"host agent", failed.Log}} {
		for _, line := range part.lines {
			m.say(fmt.Sprintf("  (%s, %s) | %s", failed.Name, part.name, strings.TrimRight(line, "\r")))
		}
	}
}

// machineAction is a command that does one thing to every machine named.
type machineAction struct {
	name, short, long, example string
	// done is what to say afterwards, with the machine's name in it; empty: nothing.
	done string
	do   func(ctx context.Context, one *machine.Machine) error
}

func (m *machines) actionCommand(x machineAction) *cobra.Command {
	return &cobra.Command{
		Use: x.name + " [OPTIONS] [MACHINE...]", Short: x.short, Long: x.long, Example: x.example,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			return m.each(c.Context(), args, func(ctx context.Context, one *machine.Machine) error {
				if err := x.do(ctx, one); err != nil {
					m.showStartFailure(err)
					return err
				}
				if x.done != "" {
					m.say(fmt.Sprintf(x.done, one.Name))
				}
				return nil
			})
		},
	}
}

func newMachineStartCommand(m *machines) *cobra.Command {
	return m.actionCommand(machineAction{
		name: "start", short: "Start machines", done: "Machine %q runs.",
		long: "Start machines, default if none is named, and wait until their engines answer. One that runs stays as it is; one whose host agent\ndied is taken over.",
		do:   func(ctx context.Context, one *machine.Machine) error { return one.Start(ctx, m.tell()) },
	})
}

func newMachineStopCommand(m *machines) *cobra.Command {
	var timeout int
	var cold bool
	c := m.actionCommand(machineAction{
		name: "stop", short: "Stop machines in order", done: "Machine %q is stopped.",
		long: `Stop machines in order, default if none is named: their containers, then the machine.
What does not stop in time is ended. Where it can, a machine keeps the memory of its
engine at rest on disk, so that its next start takes a second; --cold turns it off.`,
		do: func(ctx context.Context, one *machine.Machine) error {
			return one.Stop(ctx, machine.StopOptions{Timeout: inSeconds(timeout), Cold: cold}, m.tell())
		},
	})
	c.Flags().BoolVar(&cold, "cold", false, "turn the machine off: its next start boots it")
	c.Flags().IntVarP(&timeout, "timeout", "t", 0, "`SECONDS` for containers to stop (default: the engine's own time)")
	return c
}

func newMachineRestartCommand(m *machines) *cobra.Command {
	var timeout int
	c := m.actionCommand(machineAction{
		name: "restart", short: "Stop machines in order and boot them", done: "Machine %q runs.",
		do: func(ctx context.Context, one *machine.Machine) error {
			return one.Restart(ctx, machine.StopOptions{Timeout: inSeconds(timeout)}, m.tell())
		},
	})
	c.Flags().IntVarP(&timeout, "timeout", "t", 0, "`SECONDS` for containers to stop (default: the engine's own time)")
	return c
}

func newMachineKillCommand(m *machines) *cobra.Command {
	return m.actionCommand(machineAction{
		name: "kill", short: "End machines at once", done: "Machine %q is stopped.",
		long: "End machines at once, as pulling the plug does. What containers had not written to disk is lost.",
		do:   func(ctx context.Context, one *machine.Machine) error { return one.Kill(ctx, m.tell()) },
	})
}

func newMachineProvisionCommand(m *machines) *cobra.Command {
	return m.actionCommand(machineAction{
		name: "provision", short: "Give machines their settings anew", done: "Machine %q has its settings anew.",
		long: "Write certificates and settings of machines anew and give them to the engine, which restarts a machine that runs.",
		do: func(ctx context.Context, one *machine.Machine) error {
			return one.Provision(ctx, machine.StopOptions{}, m.tell())
		},
	})
}

func newMachineRegenerateCommand(m *machines) *cobra.Command {
	var force, client bool
	c := &cobra.Command{
		Use:   "regenerate-certs [OPTIONS] [MACHINE...]",
		Short: "Make the certificates of machines' TCP addresses anew",
		Long: `Make the certificates of machines' TCP addresses anew. They are renewed by
themselves before they expire; this is for keys that somebody may have seen.
Programs that hold the old client certificate have to read the new one.`,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			if !force {
				agreed, err := m.yes(c.Context(), "Regenerate TLS machine certs?  Warning: this is irreversible. (y/n): ")
				if err != nil || !agreed {
					return err
				}
			}
			return m.each(c.Context(), args, func(ctx context.Context, one *machine.Machine) error {
				_, err := one.RegenerateCertificates(ctx, machine.RegenerateOptions{Force: true, ClientToo: client})
				return err
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	c.Flags().BoolVar(&client, "client-certs", false, "make the authority and the client's certificate anew, too")
	return c
}

// yes asks a question in docker-machine's words; the answer may come through a pipe.
func (m *machines) yes(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(m.err, question)
	answer := make(chan string, 1)
	go func() { answer <- readLine(m.in) }() // reading a terminal cannot be interrupted; the process ends soon after ctx
	select {
	case <-ctx.Done():
		fmt.Fprintln(m.err)
		return false, ctx.Err()
	case line := <-answer:
		if !isTerminal(m.in) {
			fmt.Fprintln(m.err)
		}
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	}
}

func newMachineRmCommand(m *machines) *cobra.Command {
	var force, yes bool
	c := &cobra.Command{
		Use:     "rm [OPTIONS] MACHINE...",
		Aliases: []string{"remove"},
		Short:   "Remove machines with their containers, images and volumes",
		Long: `Remove machines: their containers, images, VOLUMES and snapshots are lost. A machine
that runs is stopped first. The folders that it shared stay as they are.

With --force it asks nothing, ends what does not stop, takes away what is left of a
broken machine, and exits with 0 in any case.`,
		Args:              takes(1, -1, "MACHINE"),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			return m.runRm(c.Context(), args, force, yes)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "ask nothing, and remove what can be removed")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (m *machines) runRm(ctx context.Context, names []string, force, yes bool) error {
	s, err := m.store()
	if err != nil {
		return err
	}
	if !force { // a misspelled name is better known before the question
		for _, name := range names {
			one, err := m.get(s, name)
			if err == nil {
				err = m.tellSnapshots(one)
			}
			if err != nil {
				return err
			}
		}
	}
	if !force && !yes {
		m.say("About to remove " + strings.Join(names, ", ") + "\nWARNING: This action will delete both local reference and remote instance.")
		agreed, err := m.yes(ctx, "Are you sure? (y/n): ")
		if err != nil || !agreed {
			return err
		}
	}
	err = m.each(ctx, names, func(ctx context.Context, one *machine.Machine) error { return m.remove(ctx, one, force) })
	if err != nil && force {
		m.printError(err)
		return nil
	}
	return err
}

// remove removes a machine and what this user has outside its folder for it.
func (m *machines) remove(ctx context.Context, one *machine.Machine, force bool) error {
	if err := one.Remove(ctx, machine.RemoveOptions{Force: force}, m.tell()); err != nil {
		return err
	}
	m.say("Successfully removed " + one.Name)
	var errs []error
	if used, err := m.activeName(); err == nil && used == one.Name {
		errs = append(errs, m.setActive(""))
	}
	errs = append(errs, m.dropMachineContext(one))
	if system, err := m.autostart(); err == nil && system.Enabled(ctx, one.Name) {
		_, err := system.Disable(ctx, one.Name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type machineEdit struct {
	machineSizes
	shares, unshare []string
	labels          []string
	restart         bool
}

func newMachineEditCommand(m *machines) *cobra.Command {
	var o machineEdit
	c := &cobra.Command{
		Use:   "edit [OPTIONS] [MACHINE]",
		Short: "Change a machine's CPUs, memory, disk and shared folders",
		Long: `Change a machine's CPUs, memory, disk and shared folders. What changes takes effect
when the machine is started the next time, or at once with --restart. The disk
grows at once, also while the machine runs.

A smaller --disk is a copy: it takes a stop of the machine (--restart stops and
starts it) and room on this host for a second disk. All files are compared before
the copy takes the disk's place, and the disk as it was is kept until the machine
has come up with the new one.`,
		Example: `  dev machine edit --memory 8g --restart
  dev machine edit --disk 200g --share /data box
  dev machine edit --disk 20g --restart box
  dev machine edit --unshare /data box`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE:              func(c *cobra.Command, args []string) error { return m.runEdit(c.Context(), o, args) },
	}
	f := c.Flags()
	o.machineSizes.register(f)
	f.StringArrayVar(&o.shares, "share", nil, "`FOLDER[:PATH][:ro][,type=TYPE][,cache=CACHE]` to share, too; may be repeated")
	f.StringArrayVar(&o.unshare, "unshare", nil, "`FOLDER` to share no more; may be repeated")
	f.StringArrayVar(&o.labels, "label", nil, "`KEY=VALUE` to set, KEY= to take away; may be repeated")
	f.BoolVar(&o.restart, "restart", false, "restart the machine if it runs")
	return c
}

func (m *machines) runEdit(ctx context.Context, o machineEdit, args []string) error {
	one, err := m.one(args)
	if err != nil {
		return err
	}
	shares, err := m.parseShares(o.shares)
	if err != nil {
		return err
	}
	labels, err := keyValues("--label", o.labels)
	if err != nil {
		return err
	}
	var unshare []string
	for _, folder := range o.unshare {
		if folder, err = m.path(folder); err != nil {
			return err
		}
		unshare = append(unshare, folder)
	}
	if o.disk != 0 && int(o.disk) < one.Spec.DiskMiB {
		if err := m.shrinkDisk(ctx, one, o.disk, o.restart); err != nil {
			return err
		}
	}
	before := one.Spec
	running, err := one.Edit(ctx, func(spec *machine.Spec) error {
		o.machineSizes.apply(spec)
		editLabels(spec, labels)
		return editShares(spec, shares, unshare)
	})
	if err != nil {
		return err
	}
	m.say(fmt.Sprintf("Machine %q: %s", one.Name, describeSpec(one.Spec)))
	grown := running && one.Spec.DiskMiB > before.DiskMiB && m.growDisk(ctx, one)
	switch {
	case !running || !takesStart(before, one.Spec, grown):
	case o.restart:
		err = one.Restart(ctx, machine.StopOptions{}, m.tell())
		m.showStartFailure(err)
	default:
		m.say("It takes effect at the next start: " + m.typed("restart", one.Name))
	}
	return err
}

func editLabels(spec *machine.Spec, labels map[string]string) {
	for k, v := range labels {
		if v == "" {
			delete(spec.Labels, k)
			continue
		}
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[k] = v
	}
}

// editShares adds shares, in place of those of the same folder, and takes away others.
func editShares(spec *machine.Spec, add []machine.Share, remove []string) error {
	keep := func(gone func(machine.Share) bool) (kept []machine.Share) {
		for _, s := range spec.Shares {
			if !gone(s) {
				kept = append(kept, s)
			}
		}
		return kept
	}
	for _, folder := range remove {
		kept := keep(func(s machine.Share) bool { return s.Host == folder })
		if len(kept) == len(spec.Shares) {
			return withHint(fmt.Errorf("unshare %q: the machine does not share it", folder), "it shares: %s", shareList(spec.Shares))
		}
		spec.Shares = kept
	}
	for _, s := range add {
		spec.Shares = append(keep(func(old machine.Share) bool { return old.Host == s.Host }), s)
	}
	return nil
}

func shareList(shares []machine.Share) string {
	var folders []string
	for _, s := range shares {
		folders = append(folders, s.Host)
	}
	if len(folders) == 0 {
		return "no folder"
	}
	return strings.Join(folders, ", ")
}

func newMachineVersionCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:               "version [MACHINE]",
		Short:             "Print the version of dev, or of a machine's engine",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return m.printLines([]string{strings.Join(m.words, " ") + " version " + Version})
			}
			one, err := m.one(args)
			if err != nil {
				return err
			}
			st, err := m.running(c.Context(), one)
			if err != nil {
				return err
			}
			if st.Agent == nil || st.Agent.Engine == "" {
				return fmt.Errorf("machine %q does not say which engine it has", one.Name)
			}
			return m.printLines([]string{st.Agent.Engine})
		},
	}
}
