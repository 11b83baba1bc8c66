// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/native"
)

func newEngineStartCommand(a *app) *cobra.Command {
	var contextFlag string
	c := &cobra.Command{
		Use:   "start [OPTIONS]",
		Short: "Start the engine",
		Long: `Start the engine as a background service and wait until it answers. It is a
systemd unit (dev-engine.service) where systemd runs, else a process of its own.
Settings are read from ~/.dev/config.yaml.

The docker CLI and other tools can use it through a docker context named dev,
which is made if you agree: asked once on a terminal, or by --docker-context.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			answer, err := parseAnswer(contextFlag)
			if err != nil {
				return err
			}
			if err := a.startEngine(c.Context()); err != nil {
				return err
			}
			return a.offerContext(c.Context(), answer)
		},
	}
	c.Flags().StringVar(&contextFlag, "docker-context", "", "make the docker context dev: yes or no (default: ask once)")
	return c
}

// startEngine starts the engine unless it runs, and says so.
func (a *app) startEngine(ctx context.Context) error {
	s, settings, err := a.startableService()
	if err != nil {
		return err
	}
	done := a.announceStart(s)
	started, err := s.Start(ctx, settings)
	if err != nil {
		a.showComponentLog(err)
		return err
	}
	if started {
		done()
		return nil
	}
	fmt.Fprintln(a.err, "The engine runs already:", s.Paths.Host())
	a.hintRestart(ctx, s, settings)
	return nil
}

// hintRestart says when a restart would change something. It only helps: what it cannot find out it leaves.
func (a *app) hintRestart(ctx context.Context, s *native.Service, settings native.Settings) {
	const restart = "`dev engine restart` applies %s and keeps containers running.\n"
	if changed, err := s.SettingsChanged(settings); err == nil && changed {
		fmt.Fprintf(a.err, "Its settings have changed since: "+restart, "them")
	}
	if outdated, err := s.Outdated(ctx); err == nil && outdated {
		fmt.Fprintf(a.err, "It is another version than this dev carries: "+restart, "this one")
	}
}

// slowUnpack is how long looking after the unpacked bundle takes at most when there is nothing to unpack.
const slowUnpack = 300 * time.Millisecond

// announceStart says what a start waits for when it is something slow; the returned func says that it is done.
func (a *app) announceStart(s *native.Service) (done func()) {
	began := time.Now()
	unpacking := time.AfterFunc(time.Hour, func() { fmt.Fprintln(a.err, "Unpacking the engine, which is done once …") })
	unpacking.Stop()
	s.Stage = func(stage native.Stage) {
		a.logger().Debug("starting the engine", "stage", stage, "after", time.Since(began))
		unpacking.Stop()
		if stage == native.StageUnpack {
			unpacking.Reset(slowUnpack)
		}
	}
	return func() {
		fmt.Fprintf(a.err, "Engine started in %s: %s\n", time.Since(began).Round(10*time.Millisecond), s.Paths.Host())
	}
}

// showComponentLog shows the last lines of the component that made a start fail.
func (a *app) showComponentLog(err error) {
	var failed interface{ Lines() []string }
	if !errors.As(err, &failed) {
		return
	}
	for _, line := range failed.Lines() {
		fmt.Fprintln(a.err, "  |", line)
	}
}

func parseAnswer(value string) (config.Answer, error) {
	switch answer := config.Answer(value); answer {
	case config.Unanswered, config.Yes, config.No:
		return answer, nil
	}
	return "", fmt.Errorf("--docker-context %q is neither yes nor no", value)
}
