// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/endpoint"
)

func newInstallPluginCommand(a *app) *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:     "install-plugin [OPTIONS]",
		Short:   "Make docker compose run dev",
		GroupID: groupEngine,
		Long: `Makes dev the docker CLI's compose plugin for your user: docker compose up is dev up
then. A plugin of yours that is there already is kept aside, and --remove brings it
back. Plugins of the system are not touched: yours comes before them.`,
		Example: `  dev install-plugin              docker compose runs dev
  dev install-plugin --remove     docker compose is what it was before`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.findPlugin(c.Context())
			if err != nil {
				return err
			}
			if remove {
				return a.removePlugin(p)
			}
			return a.installPlugin(p)
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "take it out again, and bring back what was there")
	return c
}

// plugin is the docker CLI's compose plugin of the user as it is now.
type plugin struct {
	// path is where the docker CLI looks for it, kept where another one is put aside: its name does not begin with docker-, so that the docker CLI
	// does not take it for a plugin.
	path, kept string
	there      bool
	ours       bool
	// what it is: where the link leads, or the version that it says.
	what     string
	hasKept  bool
	self     string
	upToDate bool
}

func (a *app) findPlugin(ctx context.Context) (plugin, error) {
	dir, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return plugin{}, err
	}
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return plugin{}, fmt.Errorf("find this program's file: %w", err)
	}
	suffix := ""
	if runtime.GOOS == "windows" {
		suffix = ".exe"
	}
	dir = filepath.Join(dir, "cli-plugins")
	p := plugin{path: filepath.Join(dir, pluginName+suffix), kept: filepath.Join(dir, ".kept-by-dev-"+pluginName+suffix), self: exe}
	_, err = os.Lstat(p.kept)
	p.hasKept = err == nil
	info, err := os.Lstat(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("look at the plugin: %w", err)
	}
	p.there = true
	p.identify(ctx, info)
	return p, nil
}

// identify finds out whether the plugin is dev: it leads to this program, or says so itself.
func (p *plugin) identify(ctx context.Context, info fs.FileInfo) {
	if info.Mode()&fs.ModeSymlink != 0 {
		target, _ := os.Readlink(p.path)
		p.what = "a link to " + target
		real, err := filepath.EvalSymlinks(p.path)
		p.upToDate = err == nil && real == p.self
		name := strings.TrimSuffix(filepath.Base(target), ".exe")
		p.ours = p.upToDate || err != nil && name == "dev"
		if p.ours {
			return
		}
	}
	m, err := askMetadata(ctx, p.path)
	switch {
	case err == nil:
		p.ours = m.Vendor == pluginVendor
		p.what = strings.TrimSpace("version " + m.Version + " of " + m.Vendor)
	case p.what == "":
		p.what = "a file that is no plugin"
	}
	if same, err := sameContent(p.path, p.self); err == nil && same {
		p.upToDate = true
	}
}

// askMetadata asks a plugin what it is, as the docker CLI does.
func askMetadata(ctx context.Context, path string) (metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, path, pluginMetadata)
	c.WaitDelay = time.Second
	out, err := c.Output()
	if err != nil {
		return metadata{}, err
	}
	var m metadata
	return m, json.Unmarshal(out, &m)
}

// sameContent reports whether two files are the same, by size and content.
func sameContent(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if err != nil || x.Size() != y.Size() {
		return false, err
	}
	if os.SameFile(x, y) {
		return true, nil
	}
	ca, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	cb, err := os.ReadFile(b)
	return err == nil && string(ca) == string(cb), err
}

func (a *app) installPlugin(p plugin) error {
	switch {
	case p.there && p.ours && p.upToDate:
		return a.tell("docker compose runs dev already: %s", p.path)
	case p.there && !p.ours && p.hasKept:
		return withHint(fmt.Errorf("install the plugin: %s is %s, and another one is kept in %s already", p.path, p.what, p.kept),
			"remove the one that you do not need")
	case a.dryRun:
		if p.there && !p.ours {
			if err := a.sayDryRun("keep %s, %s, as %s", p.path, p.what, p.kept); err != nil {
				return err
			}
		}
		return a.sayDryRun("make %s lead to %s", p.path, p.self)
	}
	if err := os.MkdirAll(filepath.Dir(p.path), 0o755); err != nil {
		return fmt.Errorf("install the plugin: %w", err)
	}
	if p.there && !p.ours {
		if err := os.Rename(p.path, p.kept); err != nil {
			return fmt.Errorf("keep what is there: %w", err)
		}
		if err := a.tell("kept what was there, %s: %s", p.what, p.kept); err != nil {
			return err
		}
	}
	if err := p.place(); err != nil {
		return fmt.Errorf("install the plugin: %w", err)
	}
	return errors.Join(a.tell("docker compose runs dev now: %s -> %s", p.path, p.self),
		a.tell("dev install-plugin --remove takes it out again"))
}

// place puts the program where the docker CLI looks, in one step: a link to it, or a copy where links are not to be had.
func (p plugin) place() error {
	temp := filepath.Join(filepath.Dir(p.path), ".new-"+filepath.Base(p.path))
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if runtime.GOOS == "windows" || os.Symlink(p.self, temp) != nil {
		if err := copyProgram(p.self, temp); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, p.path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

func (a *app) removePlugin(p plugin) error {
	switch {
	case p.there && !p.ours:
		return withHint(fmt.Errorf("remove the plugin: %s is not dev but %s", p.path, p.what), "it is not dev's to remove")
	case !p.there && !p.hasKept:
		return a.tell("docker compose does not run dev: there is no %s", p.path)
	case a.dryRun && p.hasKept:
		return a.sayDryRun("put %s back as %s", p.kept, p.path)
	case a.dryRun:
		return a.sayDryRun("remove %s", p.path)
	case p.hasKept: // in one step, so that there is always one of the two
		if err := os.Rename(p.kept, p.path); err != nil {
			return fmt.Errorf("bring back what was there before: %w", err)
		}
		return a.tell("docker compose is what it was before: %s", p.path)
	}
	if err := os.Remove(p.path); err != nil {
		return fmt.Errorf("remove the plugin: %w", err)
	}
	return a.tell("removed %s", p.path)
}

// tell says on standard output what a command has done.
func (a *app) tell(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}
