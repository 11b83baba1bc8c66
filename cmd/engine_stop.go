// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/native"
)

func newEngineStopCommand(a *app) *cobra.Command {
	var o native.StopOptions
	c := &cobra.Command{
		Use:   "stop [OPTIONS]",
		Short: "Stop the engine and its containers",
		Long: `Stop the engine. Containers are stopped first, each with its own grace period;
those with a restart policy come back when the engine starts again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.stopEngine(c.Context(), o) },
	}
	c.Flags().BoolVar(&o.KeepContainers, "keep-containers", false, "leave containers running; they are found again at the next start")
	return c
}

func (a *app) stopEngine(ctx context.Context, o native.StopOptions) error {
	s := a.service()
	stopped, err := s.Stop(ctx, o)
	if err != nil {
		return err
	}
	if stopped {
		fmt.Fprintln(a.err, "Engine stopped.")
	} else {
		fmt.Fprintln(a.err, "The engine does not run.")
	}
	if n := s.Orphans(); n > 0 {
		fmt.Fprintf(a.err, "Containers that keep running without it: %d. `dev engine start` finds them again.\n", n)
	}
	return nil
}

func newEngineRestartCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "Restart the engine, with new settings and programs; containers keep running",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, _, err := a.startableService(); err != nil {
				return err // nothing is stopped that could not be started again
			}
			if _, err := a.service().Stop(c.Context(), native.StopOptions{KeepContainers: true}); err != nil {
				return err
			}
			return a.startEngine(c.Context())
		},
	}
}
