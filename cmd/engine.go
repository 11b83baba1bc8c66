// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/native"
)

// newEngineCommand makes the commands of the engine that dev carries.
func newEngineCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "engine",
		Short:   "Start, stop and look at the engine that dev carries",
		GroupID: groupEngine,
		Long: `dev carries a Docker Engine and runs it natively on Linux, as a service with
data, socket and logs of its own. dev up starts it on demand where no other
engine is named or answers; dev engine status says which engine serves a
command, and why.

EXIT STATUS
  0  done
  1  it failed
  3  status: the engine does not run
  4  only root can do this
  5  this system lacks what the engine needs`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{
		newEngineStartCommand(a), newEngineStopCommand(a), newEngineRestartCommand(a),
		newEngineStatusCommand(a), newEngineLogsCommand(a), newEngineVersionCommand(a),
		newEngineUninstallCommand(a), newEngineServeCommand(a), newEngineContextCommand(a),
	} {
		sub.DisableFlagsInUseLine = true
		c.AddCommand(sub)
	}
	return c
}

// service is the engine that dev carries, for everything but starting it.
func (a *app) service() *native.Service {
	return &native.Service{
		Paths:   native.DefaultPaths(a.getenv),
		Systemd: native.SystemdRunning() && a.getenv("DEV_ENGINE_ROOT") == "", // a second engine is nobody's unit
		Log:     a.logger(),
	}
}

// startableService is the engine that dev carries, with what starting it needs.
func (a *app) startableService() (*native.Service, native.Settings, error) {
	s := a.service()
	exe, err := os.Executable()
	if err != nil {
		return nil, native.Settings{}, err
	}
	if s.Source, err = native.FindSource(a.getenv, exe); err != nil {
		return nil, native.Settings{}, err
	}
	s.Supervisor = []string{exe, "engine", "serve"}
	for _, name := range []string{"DEV_ENGINE_ROOT", "DEV_ENGINE_BUNDLE", "DEV_HOME", "GOCOVERDIR"} {
		if value, ok := a.lookupEnv(name); ok {
			s.Env = append(s.Env, name+"="+value)
		}
	}
	dir, err := a.userDir()
	if err != nil {
		return nil, native.Settings{}, err
	}
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil {
		return nil, native.Settings{}, err
	}
	return s, native.NewSettings(c.Engine, a.getenv), nil
}
