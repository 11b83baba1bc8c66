// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// completeServices completes names of services, those of inactive profiles too. Problems with the Compose files stay silent: there is no
// place to show them.
func (a *app) completeServices(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	o, err := a.loadOptions()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	o.Warn, o.NoEnvResolution = nil, true
	p, err := a.loadWith(c.Context(), o, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return matching(serviceNames(p), args, prefix), cobra.ShellCompDirectiveNoFileComp
}

// completeFirstService completes the service, and leaves what follows it to the shell.
func (a *app) completeFirstService(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeServices(c, args, prefix)
}

// completeProfiles completes names of profiles.
func (a *app) completeProfiles(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	o, err := a.loadOptions()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	o.Warn, o.NoEnvResolution = nil, true
	p, err := a.loadWith(c.Context(), o, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return matching(p.AllServices().GetProfiles(), nil, prefix), cobra.ShellCompDirectiveNoFileComp
}

// matching are the sorted names with the prefix that were not given yet.
func matching(names, given []string, prefix string) []string {
	var out []string
	for _, n := range slices.Sorted(slices.Values(names)) {
		if strings.HasPrefix(n, prefix) && !slices.Contains(given, n) {
			out = append(out, n)
		}
	}
	return out
}
