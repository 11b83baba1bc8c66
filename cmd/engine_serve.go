// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/native"
)

// newEngineServeCommand is the engine's supervisor: what `dev engine start` or the systemd unit runs, not a user.
func newEngineServeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "serve",
		Short:  "Run the engine in the foreground",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			source, err := native.FindSource(a.getenv, exe)
			if err != nil {
				return err
			}
			return native.Serve(c.Context(), native.ServeOptions{
				Paths: native.DefaultPaths(a.getenv), Source: source, Notify: a.getenv("NOTIFY_SOCKET"),
				Log: slog.New(slog.NewTextHandler(a.err, nil)),
			})
		},
	}
}
