// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/internal/program"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

// ServeMachine is the body of a host agent (serve.Serve of package machine). dev does not link it, because its TCP/IP stack would cost each
// command: `dev hostagent` becomes the program that does (package program).
type ServeMachine func(ctx context.Context, store *machine.Store, name string, env []string) error

// newHostAgentCommand is a machine's host agent: what `dev machine start` runs in the background, not a user.
func newHostAgentCommand(a *app) *cobra.Command {
	m := a.machines()
	var shrink bool
	c := &cobra.Command{
		Use:    "hostagent MACHINE",
		Short:  "Keep a machine running",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if shrink {
				return m.shrinkMemory(c.Context(), args[0])
			}
			if a.serveMachine == nil {
				o := a.carried()
				name, err := program.HostAgent().Find(o)
				if err != nil {
					return err
				}
				// The arguments stay what they are: they tell whose agent a process is.
				return replaceProcess(name, []string{name, c.Name(), "--storage-path", m.storage, args[0]}, a.env)
			}
			s, err := m.store()
			if err != nil {
				return err
			}
			s.Logger = slog.New(slog.NewJSONHandler(a.err, nil))
			return a.serveMachine(c.Context(), s, args[0], a.env)
		},
	}
	c.Flags().StringVarP(&m.storage, "storage-path", "s", "", "folder of the machines")
	c.Flags().BoolVar(&shrink, machine.ShrinkFlag, false, "compress the machine's saved memory")
	return c
}

// shrinkMemory compresses the saved memory of a machine that sleeps. Whoever wants the machine meanwhile has it as it is.
func (m *machines) shrinkMemory(ctx context.Context, name string) error {
	s, err := m.store()
	if err != nil {
		return err
	}
	one, err := s.Get(name)
	if err != nil {
		return err
	}
	folders := []string{one.Dir.Memory()}
	templates, err := s.Templates().List()
	for _, t := range templates {
		folders = append(folders, t.Dir)
	}
	for _, dir := range folders {
		if shrinkErr := saved.Shrink(ctx, dir); !errors.Is(shrinkErr, saved.ErrWanted) {
			err = errors.Join(err, shrinkErr)
		}
	}
	return err
}
