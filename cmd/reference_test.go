// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const referenceFile = "../docs/cli.md"

// TestReference holds docs/cli.md to the commands. UPDATE=1 go test ./cmd -run TestReference writes what comes after its marker.
func TestReference(t *testing.T) {
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	const marker = "<!-- commands -->\n"
	intro, old, ok := strings.Cut(string(text), marker)
	if !ok {
		t.Fatalf("%s has no line %q", referenceFile, marker)
	}
	if want := reference(newRootCommand(&app{})); old != want {
		if os.Getenv("UPDATE") == "" {
			t.Fatalf("%s is not what the commands say: UPDATE=1 go test ./cmd -run TestReference", referenceFile)
		}
		if err := os.WriteFile(referenceFile, []byte(intro+marker+want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// reference describes the commands by group, but for dev compose, which repeats them.
func reference(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## Before every command\n\n%s", flagTable(root.LocalFlags()))
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "\n## %s\n", strings.TrimSuffix(g.Title, ":"))
		describe(&b, root, g.ID)
	}
	b.WriteString("\n## Other\n")
	describe(&b, root, "")
	return b.String()
}

func describe(b *strings.Builder, parent *cobra.Command, group string) {
	for _, c := range parent.Commands() {
		if c.GroupID != group || !c.IsAvailableCommand() || c.Name() == "compose" || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		c.InitDefaultHelpFlag()
		fmt.Fprintf(b, "\n### %s\n\n%s.\n\n`%s`\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."), c.UseLine())
		if table := flagTable(c.LocalFlags()); table != "" {
			b.WriteString("\n" + table)
		}
		describe(b, c, "")
	}
}

func flagTable(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			name += " " + value
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", "\\|"))
	})
	if b.Len() == 0 {
		return ""
	}
	return "| flag | meaning |\n|---|---|\n" + b.String()
}

// TestEveryFlagOfDockerCompose names the flags of docker compose v5.0.2 that must be there. Those that mean nothing any more are
// accepted and hidden. What its help shows is compared by TestSameCommandLine.
func TestEveryFlagOfDockerCompose(t *testing.T) {
	root := newRootCommand(&app{})
	for command, flags := range map[string]string{
		"":        "all-resources ansi compatibility dry-run env-file file parallel profile progress project-directory project-name no-ansi workdir",
		"attach":  "detach-keys index no-stdin sig-proxy",
		"build":   "build-arg builder check memory no-cache print provenance pull push quiet sbom ssh with-dependencies progress parallel compress force-rm no-rm",
		"config":  "environment format hash images lock-image-digests models networks no-consistency no-env-resolution no-interpolate no-normalize no-path-resolution output profiles quiet resolve-image-digests services variables volumes",
		"create":  "build force-recreate no-build no-recreate pull quiet-pull remove-orphans scale yes",
		"down":    "remove-orphans rmi timeout volumes",
		"events":  "json since until",
		"exec":    "detach env index no-tty privileged user workdir interactive tty",
		"images":  "format quiet",
		"kill":    "remove-orphans signal",
		"logs":    "follow index no-color no-log-prefix since tail timestamps until",
		"ls":      "all filter format quiet",
		"port":    "index protocol",
		"ps":      "all filter format no-trunc orphans quiet services status",
		"pull":    "ignore-buildable ignore-pull-failures include-deps policy quiet parallel no-parallel",
		"restart": "no-deps timeout",
		"rm":      "force stop volumes all",
		"run": "build cap-add cap-drop detach entrypoint env env-from-file interactive label name no-TTY no-deps publish pull quiet quiet-build quiet-pull " +
			"remove-orphans rm service-ports use-aliases user volume workdir tty",
		"scale": "no-deps",
		"start": "wait wait-timeout",
		"stop":  "timeout",
		"up": "abort-on-container-exit abort-on-container-failure always-recreate-deps attach attach-dependencies build detach exit-code-from force-recreate " +
			"menu no-attach no-build no-color no-deps no-log-prefix no-recreate no-start pull quiet-build quiet-pull remove-orphans renew-anon-volumes scale " +
			"timeout timestamps wait wait-timeout watch yes",
		"version": "format short",
		"pause":   "", "unpause": "", "top": "",
		"commit":  "author change index message pause",
		"cp":      "all archive follow-link index",
		"export":  "index output",
		"publish": "app oci-version resolve-image-digests with-env yes",
		"push":    "ignore-push-failures include-deps quiet",
		"stats":   "all format no-stream no-trunc",
		"volumes": "format quiet",
		"wait":    "down-project",
	} {
		for _, path := range [][]string{{command}, {"compose", command}} {
			if command == "" {
				path = path[:len(path)-1]
			}
			c, _, err := root.Find(path)
			if err != nil {
				t.Errorf("dev %s: %v", strings.Join(path, " "), err)
				continue
			}
			for _, flag := range strings.Fields(flags) {
				if c.Flags().Lookup(flag) == nil && c.PersistentFlags().Lookup(flag) == nil {
					t.Errorf("%s has no --%s", c.CommandPath(), flag)
				}
			}
		}
	}
}
