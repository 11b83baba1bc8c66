// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/snapshots"
)

func newMachineSnapshotCommand(m *machines) *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot COMMAND",
		Short: "Save whole machines, and bring them back",
		Long: `A machine's snapshot is its disk, with all containers, images and volumes, and its
settings at one moment. It is kept in the machine's folder, checked when it is used,
and removed with the machine. dev machine upgrade and restore take one by themselves;
the last three of those are kept.`,
		Example: `  dev machine snapshot save box --name before-migration
  dev machine snapshot ls box
  dev machine snapshot restore box before-migration
  dev machine snapshot rm box before-migration`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return c.Help()
		},
	}
	for _, sub := range []*cobra.Command{
		newMachineSnapshotSaveCommand(m), newMachineSnapshotLsCommand(m), newMachineSnapshotShowCommand(m), newMachineSnapshotRestoreCommand(m),
		newMachineSnapshotVerifyCommand(m), newMachineSnapshotRmCommand(m),
	} {
		sub.DisableFlagsInUseLine = true
		c.AddCommand(sub)
	}
	return c
}

func newMachineSnapshotSaveCommand(m *machines) *cobra.Command {
	var o machine.SnapshotOptions
	c := &cobra.Command{
		Use:   "save [OPTIONS] [MACHINE]",
		Short: "Save a machine's disk and settings",
		Long: `Save a machine's disk and settings. A machine that runs goes on: the guest writes out
what it has in its caches, and the disk is copied as it is at one moment; what programs
keep only in memory is not in it, as after a power cut. Stop the machine first for a
snapshot with everything at rest.

Where the host's file system can (btrfs, XFS, APFS), the copy shares its blocks with the
disk and takes an instant and no room.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			one, err := m.one(args)
			if err != nil {
				return err
			}
			snap, err := one.SaveSnapshot(c.Context(), o, m.tell())
			if err != nil {
				return err
			}
			m.say(fmt.Sprintf("Machine %q is saved: %s brings it back.", one.Name, m.typed("snapshot", "restore", one.Name, snap.Name)))
			return m.printLines([]string{snap.Name})
		},
	}
	c.Flags().StringVarP(&o.Name, "name", "n", "", "`NAME` of the snapshot (default: date and time)")
	c.Flags().StringVarP(&o.Note, "comment", "m", "", "`TEXT` to remember it by")
	return c
}

// machineSnapshotView is a snapshot as --format json shows it.
type machineSnapshotView struct {
	Machine   string    `json:"machine"`
	Name      string    `json:"name"`
	Created   time.Time `json:"created"`
	Reason    string    `json:"reason,omitempty"`
	Comment   string    `json:"comment,omitempty"`
	State     string    `json:"state,omitempty"`
	Image     string    `json:"image,omitempty"`
	CPUs      int       `json:"cpus,omitempty"`
	MemoryMiB int       `json:"memory_mib,omitempty"`
	Disk      int64     `json:"disk_bytes"`
	Data      int64     `json:"data_bytes"`
	OnHost    int64     `json:"on_host_bytes"`
	Problem   string    `json:"problem,omitempty"`
	Hint      string    `json:"hint,omitempty"`
}

func newMachineSnapshotView(s snapshots.Snapshot) machineSnapshotView {
	v := machineSnapshotView{
		Machine: s.Machine, Name: s.Name, Created: s.Created, Reason: s.Reason, Comment: s.Note, State: s.State,
		Disk: s.Disk.Size, Data: s.Disk.Data, OnHost: s.OnHost,
	}
	if s.Image != "" {
		v.Image = "sha256:" + s.Image
	}
	if spec, err := machine.ParseSpec(s.Name, []byte(s.Spec)); err == nil {
		v.CPUs, v.MemoryMiB = spec.CPUs, spec.MemoryMiB
	}
	if s.Problem != nil {
		v.Problem, v.Hint = s.Problem.Error(), hintOf(s.Problem)
	}
	return v
}

// why is what a person remembers a snapshot by.
func (v machineSnapshotView) why() string {
	switch {
	case v.Problem != "":
		return v.Problem
	case v.Comment != "":
		return v.Comment
	case v.Reason != "":
		return "before " + v.Reason
	}
	return ""
}

func newMachineSnapshotLsCommand(m *machines) *cobra.Command {
	var format string
	var quiet bool
	c := &cobra.Command{
		Use:               "ls [OPTIONS] [MACHINE...]",
		Aliases:           []string{"list"},
		Short:             "List the snapshots of machines, oldest first",
		ValidArgsFunction: m.complete,
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return unknownFormat(format, "table", "json")
			}
			views, err := m.snapshotViews(args)
			if err != nil {
				return err
			}
			return m.showMachineSnapshots(views, format, quiet)
		},
	}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show only names")
	return c
}

// snapshotViews are the snapshots of the machines named, else of all.
func (m *machines) snapshotViews(names []string) ([]machineSnapshotView, error) {
	s, err := m.store()
	if err != nil {
		return nil, err
	}
	var list []*machine.Machine
	for _, name := range names {
		one, err := m.get(s, name)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	if len(names) == 0 {
		if list, err = s.List(); err != nil {
			return nil, err
		}
	}
	views := []machineSnapshotView{}
	for _, one := range list {
		all, err := one.Snapshots()
		if err != nil {
			return nil, err
		}
		for _, snap := range all {
			views = append(views, newMachineSnapshotView(snap))
		}
	}
	return views, nil
}

func (m *machines) showMachineSnapshots(views []machineSnapshotView, format string, quiet bool) error {
	switch {
	case quiet:
		var names []string
		for _, v := range views {
			names = append(names, v.Name)
		}
		return m.printLines(names)
	case format == "json":
		return writeJSON(m.out, views)
	}
	t := table{header: []string{"MACHINE", "NAME", "CREATED", "STATE", "IMAGE", "DATA", "ON THIS HOST", "COMMENT"}}
	for _, v := range views {
		if v.Problem != "" {
			t.add(v.Machine, v.Name, "-", "unusable", "-", "-", sizeText(v.OnHost), v.why())
			continue
		}
		t.add(v.Machine, v.Name, units.HumanDuration(time.Since(v.Created))+" ago", v.State, v.Image[7:19], sizeText(v.Data), sizeText(v.OnHost), v.why())
	}
	return t.write(m.out)
}

// snapshotArgs are the machine, default unless it is named, and the names of snapshots.
func (m *machines) snapshotArgs(args []string) (*machine.Machine, []string, error) {
	var named []string
	if len(args) > 1 {
		named, args = args[:1], args[1:]
	}
	one, err := m.one(named)
	return one, args, err
}

// completeSnapshots completes a machine's name, or, as the machine's snapshots, what follows it.
func (m *machines) completeSnapshots(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		names, _ := m.complete(c, args, prefix)
		views, err := m.snapshotViews([]string{defaultMachine})
		if err == nil {
			for _, v := range views {
				names = append(names, v.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	views, err := m.snapshotViews(args[:1])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, v := range views {
		names = append(names, v.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newMachineSnapshotShowCommand(m *machines) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:               "show [OPTIONS] [MACHINE] NAME",
		Aliases:           []string{"inspect"},
		Short:             "Show what a snapshot is of, and the settings in it",
		Args:              takes(1, 2, "NAME"),
		ValidArgsFunction: m.completeSnapshots,
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return unknownFormat(format, "text", "json")
			}
			one, names, err := m.snapshotArgs(args)
			if err != nil {
				return err
			}
			snap, err := one.Snapshot(names[0])
			if err != nil {
				return err
			}
			if format == "json" {
				return writeJSON(m.out, struct {
					machineSnapshotView
					Sums string `json:"sums"`
					Spec string `json:"spec"`
				}{newMachineSnapshotView(snap), snap.Disk.Sums, snap.Spec})
			}
			return m.printLines(machineSnapshotLines(snap))
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text or json")
	return c
}

func machineSnapshotLines(s snapshots.Snapshot) []string {
	v := newMachineSnapshotView(s)
	if v.Problem != "" {
		return []string{"Problem:  " + v.Problem}
	}
	lines := []string{
		"Name:     " + v.Name, "Machine:  " + v.Machine, "Created:  " + v.Created.Local().Format(time.RFC1123), "State:    " + v.State, "Image:    " + v.Image,
		fmt.Sprintf("Disk:     %s, of which %s hold data; %s on this host", sizeText(v.Disk), sizeText(v.Data), sizeText(v.OnHost)),
	}
	if why := v.why(); why != "" {
		lines = append(lines, "Comment:  "+why)
	}
	return append(lines, "Settings:", s.Spec)
}

type machineSnapshotRestore struct{ yes, stop, noSafety bool }

func newMachineSnapshotRestoreCommand(m *machines) *cobra.Command {
	var o machineSnapshotRestore
	c := &cobra.Command{
		Use:   "restore [OPTIONS] [MACHINE] NAME",
		Short: "Make a machine what it was when a snapshot was saved",
		Long: `Make a machine what it was when a snapshot was saved: its disk, its settings and its
image. What is there now becomes a snapshot of its own first, which takes no room.

The snapshot is checked as a whole before anything is changed. A restore that is
interrupted has either not begun or is finished by the next command. A machine that
runs is stopped if you agree, or with --stop, and started again.`,
		Args:              takes(1, 2, "NAME"),
		ValidArgsFunction: m.completeSnapshots,
		RunE: func(c *cobra.Command, args []string) error {
			one, names, err := m.snapshotArgs(args)
			if err != nil {
				return err
			}
			return m.runSnapshotRestore(c.Context(), one, names[0], o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.stop, "stop", false, "stop the machine if it runs, and start it again")
	f.BoolVar(&o.noSafety, "no-safety", false, "do not keep what is there now")
	return c
}

func (m *machines) runSnapshotRestore(ctx context.Context, one *machine.Machine, name string, o machineSnapshotRestore) error {
	snap, err := one.Snapshot(name)
	if err == nil {
		err = snap.Problem
	}
	if err != nil {
		return err
	}
	status := one.Status(ctx)
	runs := status.Agent != nil
	if !o.yes {
		question := fmt.Sprintf("Replace disk and settings of machine %s by those of snapshot %s?", one.Name, name)
		if runs && !o.stop {
			question = fmt.Sprintf("Machine %s is %s. Stop it, replace its disk and settings by those of snapshot %s, and start it again?", one.Name, status.Phase, name)
		}
		agreed, err := m.confirm(ctx, question)
		if err != nil || !agreed {
			return err
		}
		o.stop = o.stop || runs
	}
	safety, err := one.RestoreSnapshot(ctx, name, machine.RestoreOptions{Stop: o.stop, NoSafety: o.noSafety}, m.tell())
	if safety != "" {
		m.say(fmt.Sprintf("What was there is snapshot %s.", safety))
	}
	if err != nil {
		m.showStartFailure(err)
		return err
	}
	m.say(fmt.Sprintf("Machine %q is restored from snapshot %s.", one.Name, name))
	return nil
}

func newMachineSnapshotVerifyCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:               "verify [MACHINE] NAME...",
		Short:             "Read snapshots as a whole and compare them with their sums",
		Args:              takes(1, -1, "NAME"),
		ValidArgsFunction: m.completeSnapshots,
		RunE: func(c *cobra.Command, args []string) error {
			one, names, err := m.snapshotArgs(args)
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range names {
				snap, err := one.VerifySnapshot(c.Context(), name)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				errs = append(errs, m.printLines([]string{fmt.Sprintf("%s: %s of data: good", name, sizeText(snap.Disk.Data))}))
			}
			return joinMachineErrors(errs)
		},
	}
}

func newMachineSnapshotRmCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:               "rm [MACHINE] NAME...",
		Aliases:           []string{"remove"},
		Short:             "Remove snapshots",
		Args:              takes(1, -1, "NAME"),
		ValidArgsFunction: m.completeSnapshots,
		RunE: func(c *cobra.Command, args []string) error {
			one, names, err := m.snapshotArgs(args)
			if err != nil {
				return err
			}
			freed, err := one.RemoveSnapshots(c.Context(), names)
			if err == nil {
				m.say(fmt.Sprintf("%s freed", sizeText(freed)))
			}
			return err
		},
	}
}

// tellSnapshots says which snapshots go with a machine that is about to be removed.
func (m *machines) tellSnapshots(one *machine.Machine) error {
	list, err := one.Snapshots()
	if err != nil || len(list) == 0 {
		return err
	}
	var size int64
	for _, s := range list {
		size += s.OnHost
	}
	what := fmt.Sprintf("its %d snapshots go", len(list))
	if len(list) == 1 {
		what = "its snapshot goes"
	}
	m.say(fmt.Sprintf("(%s) %s with it: %s", one.Name, what, sizeText(size)))
	return nil
}
