// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import "github.com/spf13/cobra"

// newMachineCommand makes the commands of machines: the virtual machines that dev runs the engine in where it does not run natively.
func newMachineCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "machine",
		Short:   "Manage virtual machines and the images they boot",
		GroupID: groupEngine,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{newMachineImageCommand(a)} {
		sub.DisableFlagsInUseLine = true
		c.AddCommand(sub)
	}
	return c
}
