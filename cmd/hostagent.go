// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine/serve"
)

// newHostAgentCommand is a machine's host agent: what `dev machine start` runs in the background, not a user.
func newHostAgentCommand(a *app) *cobra.Command {
	m := a.machines()
	c := &cobra.Command{
		Use:    "hostagent MACHINE",
		Short:  "Keep a machine running",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := m.store()
			if err != nil {
				return err
			}
			s.Logger = slog.New(slog.NewJSONHandler(a.err, nil))
			return serve.Serve(c.Context(), s, args[0], a.env)
		},
	}
	c.Flags().StringVarP(&m.storage, "storage-path", "s", "", "folder of the machines")
	return c
}
