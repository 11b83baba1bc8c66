// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mitchellh/go-homedir"
	"github.com/spf13/cobra"
)

// globals are the flags that stand before the command, the same on `dev` and `dev compose`: docker compose's, and --host and --debug.
type globals struct {
	files, profiles, envFiles []string
	projectName, projectDir   string
	parallel                  int
	progressName, ansi        string
	compatibility             bool
	allResources              bool
	dryRun                    bool
	noANSI                    bool
	version, verbose          bool
	// envName is the environment to work in, empty for the one of the folder.
	envName string
	// insecure are registries that Compose files are fetched from without TLS.
	insecure []string
	// host is the engine's address, empty to resolve it (package endpoint).
	host  string
	debug bool
}

// progressNames are the values of --progress, the default first.
var progressNames = []string{"auto", "tty", "plain", "json", "quiet"}

// addGlobals registers the global flags on c, which is a root of compose commands. --dry-run, --debug and --env may stand anywhere, as nothing else
// has their names (but exec and run have an --env of their own); the others only before the command, because -f, -p, … mean other things after it.
func (a *app) addGlobals(c *cobra.Command) {
	g := &a.globals
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringArrayVarP(&g.files, "file", "f", nil, "`FILE` to read: a Compose file, - for standard input; may be repeated")
	f.StringVarP(&g.projectName, "project-name", "p", "", "`NAME` of the project (default: from the file or its folder)")
	f.StringArrayVar(&g.profiles, "profile", nil, "`PROFILE` to enable; may be repeated")
	f.StringArrayVar(&g.envFiles, "env-file", nil, "`FILE` of variables to read instead of .env; may be repeated")
	f.StringVar(&g.projectDir, "project-directory", "", "`FOLDER` that relative paths start from (default: the first Compose file's)")
	f.StringVar(&g.projectDir, "workdir", "", "older name of --project-directory")
	f.IntVar(&g.parallel, "parallel", -1, "most engine calls at once, -1 for the default")
	f.StringVar(&g.progressName, "progress", "", "how to show progress: "+strings.Join(progressNames, ", "))
	f.StringVar(&g.ansi, "ansi", "auto", "when to use colors and cursor control: never, always, auto")
	f.BoolVar(&g.compatibility, "compatibility", false, "name containers as Compose version 1 did, with _ for -")
	f.BoolVar(&g.allResources, "all-resources", false, "include networks, volumes, … that no service uses")
	f.StringVarP(&g.host, "host", "H", "", "`ADDRESS` of the engine to use: unix://, tcp://, ssh://")
	f.BoolVar(&g.noANSI, "no-ansi", false, "older form of --ansi never")
	f.BoolVarP(&g.version, "version", "v", false, "show the version")
	f.BoolVar(&g.verbose, "verbose", false, "older form of --debug")
	f.StringArrayVar(&g.insecure, "insecure-registry", nil, "`REGISTRY` to fetch Compose files from without TLS; may be repeated")
	for _, name := range []string{"workdir", "no-ansi", "version", "verbose", "insecure-registry"} {
		_ = f.MarkHidden(name)
	}
	a.completeGlobals(c)
	p := c.PersistentFlags()
	p.BoolVar(&g.dryRun, "dry-run", false, "show what would be done, and why, and do nothing")
	p.StringVar(&g.envName, "env", "", "work in the environment `NAME` of the project instead of the folder's own (see dev env)")
	p.BoolVarP(&g.debug, "debug", "D", false, "tell what happens inside, on stderr")
}

// settle checks the global flags and fills in what the environment says.
func (a *app) settle(c *cobra.Command) error {
	g := &a.globals
	fromEnv := func(flag, name string, set func(string) error) error {
		v := a.getenv(name)
		if v == "" || givenAbove(c, flag) {
			return nil
		}
		return set(v)
	}
	err := fromEnv("parallel", "COMPOSE_PARALLEL_LIMIT", func(v string) (err error) {
		if g.parallel, err = strconv.Atoi(v); err != nil {
			return fmt.Errorf("read COMPOSE_PARALLEL_LIMIT: %q is not a number", v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_ = fromEnv("ansi", "COMPOSE_ANSI", func(v string) error { g.ansi = v; return nil })
	_ = fromEnv("progress", "COMPOSE_PROGRESS", func(v string) error { g.progressName = v; return nil })
	_ = fromEnv("compatibility", "COMPOSE_COMPATIBILITY", func(v string) error { g.compatibility = isTrue(v); return nil })
	_ = fromEnv("env-file", "COMPOSE_ENV_FILES", func(v string) error { g.envFiles = splitList(v); return nil })
	if g.noANSI {
		g.ansi = "never"
	}
	g.debug = g.debug || g.verbose
	for i, file := range g.envFiles {
		if g.envFiles[i], err = a.path(file); err != nil {
			return err
		}
	}
	return g.check()
}

// givenAbove reports whether the flag was given to one of the commands that c stands under.
func givenAbove(c *cobra.Command, flag string) bool {
	for p := c.Parent(); p != nil; p = p.Parent() {
		if p.Flags().Changed(flag) {
			return true
		}
	}
	return false
}

// check refuses values that mean nothing.
func (g *globals) check() error {
	switch g.ansi {
	case "auto", "never", "always":
	default:
		return usagef("unknown --ansi value %q: use never, always or auto", g.ansi)
	}
	switch g.progressName {
	case "", "auto", "tty", "plain", "json", "quiet", "none":
	default:
		return usagef("unknown --progress value %q: use %s", g.progressName, strings.Join(progressNames, ", "))
	}
	if g.progressName == "tty" && g.ansi == "never" {
		return usagef("--progress tty needs cursor control, which --ansi never forbids")
	}
	if g.progressName == "plain" && g.ansi == "always" {
		return usagef("--progress plain and --ansi always exclude each other")
	}
	return nil
}

// path makes a path that the user typed absolute: ~ is their home, relative ones start where they stand.
func (a *app) path(p string) (string, error) {
	p, err := homedir.Expand(p)
	if err != nil {
		return "", fmt.Errorf("find %q: %w", p, err)
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(a.cwd, p)
	}
	return p, nil
}

// isTrue reads a variable that switches something on.
func isTrue(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "y", "true", "yes", "on":
		return true
	}
	return false
}

// splitList splits a comma-separated variable, leaving out empty parts.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}
