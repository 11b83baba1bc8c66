// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is where flag descriptions are broken.
const helpWidth = 100

// writeUsage writes what stands under a command's description in its help: usage, examples, commands by group, flags.
func writeUsage(c *cobra.Command) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Usage:\n  %s\n", c.UseLine())
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", c.NameAndAliases())
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	for _, g := range c.Groups() {
		writeCommands(&b, g.Title, c, g.ID)
	}
	if c.HasAvailableSubCommands() {
		title := "Other:"
		if len(c.Groups()) == 0 {
			title = "Commands:"
		}
		writeCommands(&b, title, c, "")
	}
	writeFlags(&b, "Options:", c.LocalFlags())
	writeFlags(&b, "Options of every command:", c.InheritedFlags())
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help says more about a command.\n", c.CommandPath())
	}
	_, err := b.WriteTo(c.OutOrStdout())
	return err
}

func writeCommands(w io.Writer, title string, c *cobra.Command, group string) {
	var lines []string
	for _, sub := range c.Commands() {
		if sub.GroupID == group && (sub.IsAvailableCommand() || sub.Name() == "help") {
			lines = append(lines, fmt.Sprintf("  %-*s %s", sub.NamePadding(), sub.Name(), sub.Short))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n%s\n", title, strings.Join(lines, "\n"))
	}
}

func writeFlags(w io.Writer, title string, f *pflag.FlagSet) {
	if f.HasAvailableFlags() {
		fmt.Fprintf(w, "\n%s\n%s", title, f.FlagUsagesWrapped(helpWidth))
	}
}
