// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/native"
)

func newEngineLogsCommand(a *app) *cobra.Command {
	o := native.LogOptions{Tail: 50}
	c := &cobra.Command{
		Use:   "logs [OPTIONS]",
		Short: "Show what the engine's components said",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return a.service().Logs(c.Context(), a.out, o) },
	}
	f := c.Flags()
	f.StringVar(&o.Component, "component", "", "only dockerd, containerd or supervisor")
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with new lines")
	f.IntVarP(&o.Tail, "tail", "n", o.Tail, "number of lines from the end of each, -1 for all")
	return c
}
