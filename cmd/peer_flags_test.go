// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var (
	helpCommand = regexp.MustCompile(`^  ([a-z][a-z-]*)\*? {1,}\S`)
	helpFlag    = regexp.MustCompile(`^ +(?:-(\S), |    )--([a-z][a-zA-Z-]*)(?: ([a-zA-Z]+))?`)
	helpAliases = regexp.MustCompile(`^ +docker compose .*`)
)

// TestSameCommandLine compares the commands, their aliases, and the names, shorthands and kinds of their flags with what docker compose's own help
// says: whatever it has is here, too.
func TestSameCommandLine(t *testing.T) {
	if peer == "" || os.Getenv("DEV_TEST_COMPOSE") == "" {
		t.Skip("needs docker compose v5.0.2 (DEV_TEST_COMPOSE): make peers")
	}
	root := newRootCommand(&app{})
	mounted, _, err := root.Find([]string{"compose"})
	if err != nil {
		t.Fatal(err)
	}
	for _, ours := range []*cobra.Command{root, mounted} {
		if n := compareHelp(t, ours, nil); n < 40 {
			t.Errorf("only %d commands were compared: is the help of docker compose read rightly?", n)
		}
	}
}

// compareHelp compares a command and those under it, and counts them.
func compareHelp(t *testing.T, ours *cobra.Command, path []string) (compared int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), peer, append(slices.Clone(path), "--help")...).Output()
	if err != nil {
		t.Fatalf("docker compose %s --help: %v", strings.Join(path, " "), err)
	}
	compared = 1
	subs, section := []string{}, ""
	if len(path) == 0 {
		subs = append(subs, "alpha") // hidden there
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasSuffix(line, ":") && !strings.HasPrefix(line, " ") {
			section = line
			continue
		}
		switch {
		case strings.HasSuffix(section, "Commands:"):
			if m := helpCommand.FindStringSubmatch(line); m != nil {
				subs = append(subs, m[1])
			}
		case section == "Options:":
			if m := helpFlag.FindStringSubmatch(line); m != nil {
				compareFlag(t, ours, m[1], m[2], m[3])
			}
		case section == "Aliases:" && helpAliases.MatchString(line):
			for alias := range strings.SplitSeq(line, ", ") {
				name := alias[strings.LastIndex(alias, " ")+1:]
				if name != ours.Name() && !slices.Contains(ours.Aliases, name) {
					t.Errorf("%s has no alias %q", ours.CommandPath(), name)
				}
			}
		}
	}
	for _, name := range subs {
		i := slices.IndexFunc(ours.Commands(), func(c *cobra.Command) bool { return c.Name() == name || slices.Contains(c.Aliases, name) })
		if i < 0 {
			t.Errorf("there is no %s %s", ours.CommandPath(), name)
			continue
		}
		compared += compareHelp(t, ours.Commands()[i], append(slices.Clone(path), name))
	}
	return compared
}

func compareFlag(t *testing.T, ours *cobra.Command, shorthand, name, kind string) {
	t.Helper()
	f := ours.Flags().Lookup(name)
	for c := ours; f == nil && c != nil; c = c.Parent() {
		f = c.PersistentFlags().Lookup(name)
		if f == nil {
			f = c.Flags().Lookup(name)
		}
	}
	switch {
	case f == nil:
		t.Errorf("%s has no --%s", ours.CommandPath(), name)
	case shorthand != "" && f.Shorthand != shorthand:
		t.Errorf("%s: --%s is not -%s", ours.CommandPath(), name, shorthand)
	case (kind == "") != (f.Value.Type() == "bool" || f.NoOptDefVal != ""):
		t.Errorf("%s: --%s takes a value in one of the two only (%q there, %s here)", ours.CommandPath(), name, kind, f.Value.Type())
	}
}
