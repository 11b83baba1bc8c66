// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/internal/program"
	"github.com/seed71221737/dev/machine"
)

// ServeMachine is the body of a host agent (serve.Serve of package machine). dev does not link it, because its TCP/IP stack would cost each
// command: `dev hostagent` becomes the program that does (package program).
type ServeMachine func(ctx context.Context, store *machine.Store, name string, env []string) error

// newHostAgentCommand is a machine's host agent: what `dev machine start` runs in the background, not a user.
func newHostAgentCommand(a *app) *cobra.Command {
	m := a.machines()
	c := &cobra.Command{
		Use:    "hostagent MACHINE",
		Short:  "Keep a machine running",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
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
	return c
}
