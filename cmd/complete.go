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

// completeGlobals lets the shell complete the values of the global flags.
func (a *app) completeGlobals(c *cobra.Command) {
	for flag, f := range map[string]cobra.CompletionFunc{
		"file": func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		"project-directory": func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		"project-name": a.completeProjects,
		"profile":      a.completeProfiles,
		"progress":     cobra.FixedCompletions(progressNames, cobra.ShellCompDirectiveNoFileComp),
		"ansi":         cobra.FixedCompletions([]string{"auto", "never", "always"}, cobra.ShellCompDirectiveNoFileComp),
	} {
		_ = c.RegisterFlagCompletionFunc(flag, f) // fails for unknown flags only
	}
}

// completeProjects completes names of projects that the engine has, if it answers.
func (a *app) completeProjects(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	e, err := a.openEngine(c.Context(), wantsEngine)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer e.Close()
	projects, err := e.Projects(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range projects {
		names = append(names, p.Name)
	}
	return matching(names, nil, prefix), cobra.ShellCompDirectiveNoFileComp
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
