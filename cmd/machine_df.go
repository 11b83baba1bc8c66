// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// machineUsage is what a machine takes up. Sizes are in bytes.
type machineUsage struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Disk is the data disk's size; OnHost what all of the machine takes up here.
	Disk   int64 `json:"disk_bytes"`
	OnHost int64 `json:"on_host_bytes"`
	// DiskFree, the memory and the engine's part are known while the machine runs.
	DiskFree        *int64 `json:"disk_free_bytes,omitempty"`
	Memory          int64  `json:"memory_bytes"`
	MemoryAvailable *int64 `json:"memory_available_bytes,omitempty"`
	// Host is what OnHost consists of; Engine what the engine keeps; Image what the machine's image takes up, which machines share.
	Host   machine.Usage     `json:"host"`
	Engine *engine.DiskUsage `json:"engine,omitempty"`
	Image  int64             `json:"image_bytes"`
	// Reclaimable is what can be had back, and how.
	Reclaimable []reclaimable `json:"reclaimable"`
}

// reclaimable is something that can be given back.
type reclaimable struct {
	What    string `json:"what"`
	Bytes   int64  `json:"bytes"`
	Command string `json:"command"`
}

// machineDf are the flags of df.
type machineDf struct {
	asJSON, trim, verbose bool
	format                string
}

func newMachineDfCommand(m *machines) *cobra.Command {
	var o machineDf
	c := &cobra.Command{
		Use:   "df [OPTIONS] [MACHINE...]",
		Short: "Show the disk and memory that machines use, and what can be had back",
		Long: `Show the disk and memory that machines use, inside and on this host, and what can be
had back. It works for machines that are stopped, too, without starting or waking
them: what is inside is known only of those that run.

ON THIS HOST is all of a machine's folder: its disk, saved memory, snapshots and logs.
-v shows them one by one, what the engine keeps, and the command that gives back
each part.`,
		Example: `  dev machine df
  dev machine df -v box
  dev machine df --format json`,
		ValidArgsFunction: m.complete,
		RunE:              func(c *cobra.Command, args []string) error { return m.runDf(c.Context(), args, o) },
	}
	f := c.Flags()
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show what it consists of, and how to get it back")
	f.StringVarP(&o.format, "format", "f", "table", "table or json")
	f.BoolVar(&o.asJSON, "json", false, "the same as --format json")
	f.BoolVar(&o.trim, "trim", false, "first give back what was deleted in machines that run (see also compact)")
	return c
}

func (m *machines) runDf(ctx context.Context, args []string, o machineDf) error {
	switch o.format {
	case "json":
		o.asJSON = true
	case "table":
	default:
		return unknownFormat(o.format, "table", "json")
	}
	list, err := m.named(args)
	if err != nil {
		return err
	}
	usages := []machineUsage{}
	for _, one := range list {
		usages = append(usages, m.usage(ctx, one, o.trim))
	}
	if o.asJSON {
		return writeJSON(m.out, usages)
	}
	t := table{header: []string{"NAME", "STATE", "DISK", "USED", "FREE", "ON THIS HOST", "MEMORY", "AVAILABLE", "RECLAIMABLE"}}
	for _, u := range usages {
		t.add(u.row()...)
	}
	if err := t.write(m.out); err != nil || !o.verbose {
		return err
	}
	for _, u := range usages {
		if err := m.showUsage(u); err != nil {
			return err
		}
	}
	return nil
}

// named are the machines of the arguments; all where there are none.
func (m *machines) named(args []string) ([]*machine.Machine, error) {
	s, err := m.store()
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return s.List()
	}
	var list []*machine.Machine
	for _, name := range args {
		one, err := m.get(s, name)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

func (u machineUsage) row() []string {
	used, free, available := "-", "-", "-"
	if u.DiskFree != nil {
		used, free = size(u.Disk-*u.DiskFree), size(*u.DiskFree)
	}
	if u.MemoryAvailable != nil {
		available = size(*u.MemoryAvailable)
	}
	var back int64
	for _, r := range u.Reclaimable {
		back += r.Bytes
	}
	return []string{u.Name, u.State, size(u.Disk), used, free, size(u.OnHost), size(u.Memory), available, size(back)}
}

func size(bytes int64) string { return units.BytesSize(float64(bytes)) }

// showUsage prints what one machine's use consists of.
func (m *machines) showUsage(u machineUsage) error {
	fmt.Fprintln(m.out)
	parts := table{header: []string{u.Name, "SIZE", "RECLAIMABLE"}}
	parts.add("disk on this host", size(u.Host.Disk), "")
	if e := u.Engine; e != nil {
		for _, part := range []struct {
			name string
			engine.Usage
		}{{"  images", e.Images}, {"  containers", e.Containers}, {"  volumes", e.Volumes}, {"  build cache", e.BuildCache}} {
			parts.add(part.name, size(part.Size), size(part.Reclaimable))
		}
	}
	parts.add("saved memory", size(u.Host.Memory), "")
	parts.add("snapshots", size(u.Host.Snapshots), "")
	parts.add("logs", size(u.Host.Logs), "")
	if u.Host.Unfinished > 0 {
		parts.add("left by an interrupted command", size(u.Host.Unfinished), "")
	}
	parts.add("keys, settings and others", size(u.Host.Other), "")
	parts.add("image, shared by machines", size(u.Image), "")
	if err := parts.write(m.out); err != nil || len(u.Reclaimable) == 0 {
		return err
	}
	fmt.Fprintln(m.out)
	back := table{header: []string{"RECLAIMABLE", "SIZE", "BY"}}
	for _, r := range u.Reclaimable {
		back.add(r.What, size(r.Bytes), r.Command)
	}
	return back.write(m.out)
}

// engineUsageWait is how long an engine may take to count what it keeps.
const engineUsageWait = 30 * time.Second

// usage looks at one machine; what it does not tell stays unknown, with a warning.
func (m *machines) usage(ctx context.Context, one *machine.Machine, trim bool) machineUsage {
	status, cancel := context.WithTimeout(ctx, answerWait)
	st := one.Status(status)
	cancel()
	u := machineUsage{Name: one.Name, State: machineState(string(st.Phase)), Disk: int64(one.Spec.DiskMiB) << 20, Memory: int64(one.Spec.MemoryMiB) << 20}
	warn := func(err error) {
		if err != nil {
			m.warn(fmt.Sprintf("machine %q: %v", one.Name, err))
		}
	}
	// to ask one that is asleep would wake it
	if st.Phase.Up() && st.Phase != machine.PhaseAsleep {
		ctx, cancel := context.WithTimeout(ctx, engineUsageWait)
		defer cancel()
		if trim {
			warn(m.trim(ctx, one))
		}
		warn(m.inside(ctx, one, &u))
		warn(u.askEngine(ctx, st.Endpoint))
	}
	var err error
	u.Host, err = one.Usage()
	warn(err)
	u.OnHost = u.Host.Total()
	if images, err := m.imageStore(); err == nil && one.Spec.Image != "" {
		if image, err := images.Find(one.Spec.Image, one.Spec.Arch); err == nil {
			u.Image = image.Size
		}
	}
	u.Reclaimable = m.reclaimable(u)
	return u
}

// inside asks the guest.
func (m *machines) inside(ctx context.Context, one *machine.Machine, u *machineUsage) error {
	return m.control(ctx, one, func(c *proto.Client) error {
		var health proto.Health
		var memory proto.Memory
		if err := c.Call(ctx, proto.MethodHealth, nil, &health); err != nil {
			return err
		}
		if err := c.Call(ctx, proto.MethodMemory, proto.MemoryRequest{}, &memory); err != nil {
			return err
		}
		u.Disk, u.DiskFree, u.Memory, u.MemoryAvailable = health.Disk.Total, &health.Disk.Free, memory.Total, &memory.Available
		return nil
	})
}

// trim gives back what was deleted in a machine that runs.
func (m *machines) trim(ctx context.Context, one *machine.Machine) error {
	return m.control(ctx, one, func(c *proto.Client) error {
		before, err := one.Usage()
		if err != nil {
			return err
		}
		var trimmed proto.Trim
		if err := c.Call(ctx, proto.MethodTrim, nil, &trimmed); err != nil {
			return err
		}
		after, err := one.Usage()
		if err != nil {
			return err
		}
		m.say(fmt.Sprintf("(%s) gave back %s", one.Name, size(max(before.Disk-after.Disk, 0))))
		return nil
	})
}

// askEngine asks the engine what it keeps.
func (u *machineUsage) askEngine(ctx context.Context, endpoint string) error {
	c, err := engine.Open(engine.Options{Host: endpoint})
	if err != nil {
		return err
	}
	defer c.Close() // what was asked is answered
	found, err := c.DiskUsage(ctx)
	if err != nil {
		return err
	}
	u.Engine = &found
	return nil
}

// worthIt is the least number of bytes that is worth a line.
const worthIt = 1 << 20

// reclaimable is what can be had back of a machine, by which command.
func (m *machines) reclaimable(u machineUsage) []reclaimable {
	list := []reclaimable{}
	add := func(what string, bytes int64, command string) {
		if bytes >= worthIt {
			list = append(list, reclaimable{what, bytes, command})
		}
	}
	docker := fmt.Sprintf("docker $(%s) ", m.typed("config", u.Name))
	if e := u.Engine; e != nil {
		add("images that no container uses", e.Images.Reclaimable, docker+"image prune --all")
		add("containers that are stopped", e.Containers.Reclaimable, docker+"container prune")
		add("volumes that no container uses: their DATA is lost", e.Volumes.Reclaimable, docker+"volume prune --all")
		add("build cache", e.BuildCache.Reclaimable, docker+"builder prune")
	}
	if u.DiskFree != nil {
		add("deleted in the machine", u.Host.Disk-(u.Disk-*u.DiskFree), m.typed("compact", u.Name))
	}
	add("snapshots", u.Host.Snapshots, m.typed("snapshot", "rm", u.Name, "SNAPSHOT"))
	add("left by an interrupted command", u.Host.Unfinished, m.typed("start", u.Name))
	return list
}

// control opens the control link to a machine's guest agent for f.
func (m *machines) control(ctx context.Context, one *machine.Machine, f func(*proto.Client) error) error {
	client, err := m.login(ctx, one)
	if err != nil {
		return err
	}
	defer client.Close() // what it did is done
	channel, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		return fmt.Errorf("open the control link: %w", err)
	}
	go ssh.DiscardRequests(requests)
	if _, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{proto.Subsystem})); err != nil {
		return fmt.Errorf("open the control link: %w", err)
	}
	c, err := proto.NewClient(channel, "dev "+Version)
	if err != nil {
		return err
	}
	defer c.Close() // what it did is done
	return f(c)
}
