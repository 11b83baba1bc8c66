// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"os"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// machineUsage is what a machine takes up.
type machineUsage struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Disk is the data disk's size; OnHost what it takes up here. In bytes.
	Disk   int64 `json:"disk_bytes"`
	OnHost int64 `json:"on_host_bytes"`
	// DiskFree and the memory are known while the machine runs.
	DiskFree        *int64 `json:"disk_free_bytes,omitempty"`
	Memory          int64  `json:"memory_bytes"`
	MemoryAvailable *int64 `json:"memory_available_bytes,omitempty"`
}

func newMachineDfCommand(m *machines) *cobra.Command {
	var asJSON, trim bool
	c := &cobra.Command{
		Use:   "df [OPTIONS] [MACHINE...]",
		Short: "Show the disk and memory that machines use",
		Long: `Show the disk and memory that machines use, inside and on this host. With --trim
what was deleted inside is first given back to this host.`,
		ValidArgsFunction: m.complete,
		RunE:              func(c *cobra.Command, args []string) error { return m.runDf(c.Context(), args, asJSON, trim) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&trim, "trim", false, "give back what was deleted in the machine")
	return c
}

func (m *machines) runDf(ctx context.Context, args []string, asJSON, trim bool) error {
	s, err := m.store()
	if err != nil {
		return err
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	if len(args) > 0 {
		list = nil
		for _, name := range args {
			one, err := m.get(s, name)
			if err != nil {
				return err
			}
			list = append(list, one)
		}
	}
	usages := []machineUsage{}
	for _, one := range list {
		usages = append(usages, m.usage(ctx, one, trim))
	}
	if asJSON {
		return writeJSON(m.out, usages)
	}
	t := table{header: []string{"NAME", "STATE", "DISK", "USED", "FREE", "ON THIS HOST", "MEMORY", "AVAILABLE"}}
	for _, u := range usages {
		used, free, available := "-", "-", "-"
		if u.DiskFree != nil {
			used, free = units.BytesSize(float64(u.Disk-*u.DiskFree)), units.BytesSize(float64(*u.DiskFree))
		}
		if u.MemoryAvailable != nil {
			available = units.BytesSize(float64(*u.MemoryAvailable))
		}
		t.add(u.Name, u.State, units.BytesSize(float64(u.Disk)), used, free, units.BytesSize(float64(u.OnHost)), units.BytesSize(float64(u.Memory)), available)
	}
	return t.write(m.out)
}

// usage looks at one machine; what it does not tell stays unknown, with a warning.
func (m *machines) usage(ctx context.Context, one *machine.Machine, trim bool) machineUsage {
	ctx, cancel := context.WithTimeout(ctx, answerWait*3)
	defer cancel()
	st := one.Status(ctx)
	u := machineUsage{Name: one.Name, State: machineState(string(st.Phase)), Disk: int64(one.Spec.DiskMiB) << 20, Memory: int64(one.Spec.MemoryMiB) << 20}
	if info, err := os.Stat(one.Dir.DataDisk()); err == nil {
		u.OnHost = allocated(info)
	}
	if !st.Phase.Up() {
		return u
	}
	err := m.control(ctx, one, func(c *proto.Client) error {
		if trim {
			var trimmed proto.Trim
			if err := c.Call(ctx, proto.MethodTrim, nil, &trimmed); err != nil {
				return err
			}
			m.say(fmt.Sprintf("(%s) gave back %s", one.Name, units.BytesSize(float64(trimmed.Bytes))))
		}
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
	if err != nil {
		m.warn(fmt.Sprintf("machine %q: %v", one.Name, err))
	}
	if info, err := os.Stat(one.Dir.DataDisk()); err == nil {
		u.OnHost = allocated(info)
	}
	return u
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
