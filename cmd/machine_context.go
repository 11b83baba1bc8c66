// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/machine"
)

// contextOf is the name of a machine's docker context.
func contextOf(name string) string { return "dev-" + name }

// machineHost is the address of a machine's local socket, whether it runs or not.
func machineHost(one *machine.Machine) string { return endpoint.LocalHost(one.Dir.Docker()) }

// offerMachineContext makes the docker context of a machine if the user agrees, now or long ago: it is the same question as for dev's own
// engine, and is asked once for both.
func (m *machines) offerMachineContext(ctx context.Context, one *machine.Machine, given config.Answer) error {
	answer := given
	if answer == config.Unanswered {
		var err error
		if answer, err = m.remembered(); err != nil {
			return err
		}
	}
	if answer == config.Unanswered {
		question := fmt.Sprintf("Make a docker context %q, so that the docker CLI can use this machine (docker --context %[1]s …)?", contextOf(one.Name))
		agreed, err := m.agree(ctx, question, true)
		if errors.Is(err, errNoTerminal) {
			return nil // asked when there is one
		}
		if err != nil {
			return err
		}
		answer = map[bool]config.Answer{true: config.Yes, false: config.No}[agreed]
	}
	if err := m.remember(answer); err != nil || answer != config.Yes {
		return err
	}
	docker, err := m.docker()
	if err != nil {
		return err
	}
	created, err := docker.WriteContextNamed(contextOf(one.Name), "the dev machine "+one.Name, machineHost(one))
	if errors.Is(err, endpoint.ErrForeignContext) {
		m.warn(err.Error() + "; it stays as it is")
		return nil
	}
	if created {
		m.say(fmt.Sprintf("Docker context %q made: docker --context %[1]s … uses this machine.", contextOf(one.Name)))
	}
	return err
}

// docker is the docker CLI's folder.
func (a *app) docker() (endpoint.Docker, error) {
	dir, err := endpoint.DockerDir(a.getenv)
	return endpoint.Docker{Dir: dir}, err
}

// dropMachineContext removes the docker context of a machine that is gone.
func (m *machines) dropMachineContext(one *machine.Machine) error {
	docker, err := m.docker()
	if err != nil {
		return err
	}
	removed, err := docker.RemoveContextNamed(contextOf(one.Name), machineHost(one))
	if removed {
		m.say(fmt.Sprintf("Docker context %q removed.", contextOf(one.Name)))
	}
	return err
}

func newMachineUseCommand(m *machines) *cobra.Command {
	var none bool
	c := &cobra.Command{
		Use:   "use [OPTIONS] [MACHINE]",
		Short: "Choose the machine that dev up and others use",
		Long: `Choose the machine whose engine dev up and all other commands use from now on, in
every terminal; it is started when it is needed. DOCKER_HOST and --host still come
first. With --none, or where there is no machine, it is the engine that
"dev engine status" names.`,
		Example: `  dev machine use box
  dev machine use --none      on Linux: back to the engine that runs natively`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(_ *cobra.Command, args []string) error {
			if none {
				if len(args) > 0 {
					return usagef("--none takes no machine")
				}
				return m.setActive("")
			}
			one, err := m.one(args)
			if err != nil {
				return err
			}
			if err := m.setActive(one.Name); err != nil {
				return err
			}
			m.say(fmt.Sprintf("dev uses machine %q from now on.", one.Name))
			if host := m.getenv("DOCKER_HOST"); host != "" && host != machineHost(one) {
				m.warn(fmt.Sprintf("DOCKER_HOST is set in this terminal and comes first: %s", host))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&none, "none", false, "use no machine")
	return c
}
