// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/native"
)

// newEngineContextCommand makes or removes the docker context, as the user who runs it. `sudo dev engine start` runs it as the user
// who typed sudo, so that root writes nothing below another user's home.
func newEngineContextCommand(a *app) *cobra.Command {
	var answer string
	c := &cobra.Command{
		Use:    "docker-context create|remove",
		Short:  "Make or remove the docker context of the engine",
		Hidden: true,
		Args:   cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.remember(config.Answer(answer)); err != nil {
				return err
			}
			return a.setContext(args[0])
		},
	}
	c.ValidArgs = []string{"create", "remove", "keep"}
	c.Flags().StringVar(&answer, "remember", "", "the user's answer")
	return c
}

// offerContext makes the docker context if the user agrees, now or long ago.
func (a *app) offerContext(ctx context.Context, given config.Answer) error {
	remembered, err := a.remembered()
	if err != nil {
		return err
	}
	answer := given
	if answer == config.Unanswered {
		answer = remembered
	}
	if answer == config.Unanswered {
		agreed, err := a.agree(ctx, fmt.Sprintf("Make a docker context %q, so that the docker CLI can use this engine (docker --context dev …)?", endpoint.ContextName), true)
		if errors.Is(err, errNoTerminal) {
			return nil // asked when there is one
		}
		if err != nil {
			return err
		}
		answer = map[bool]config.Answer{true: config.Yes, false: config.No}[agreed]
	}
	verb := map[config.Answer]string{config.Yes: "create", config.No: "keep"}[answer]
	if answer == config.No && given == config.No {
		verb = "remove"
	}
	if answer == remembered && verb == "keep" {
		return nil
	}
	return a.asInvoker(ctx, verb, answer)
}

// dropContext removes the docker context.
func (a *app) dropContext(ctx context.Context) error { return a.asInvoker(ctx, "remove", "") }

// asInvoker changes docker context and memory as the user who stands before the screen.
func (a *app) asInvoker(ctx context.Context, verb string, answer config.Answer) error {
	u := a.invoker()
	if u == nil {
		if err := a.remember(answer); err != nil {
			return err
		}
		return a.setContext(verb)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, "engine", "docker-context", verb, "--remember", string(answer))
	cmd.Env = invokerEnv(a, u)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = a.out, a.err
	if err := becomeUser(cmd, u); err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s docker context as user %s: %w", verb, u.Username, err)
	}
	return nil
}

// invokerEnv is the little that the command needs of the environment.
func invokerEnv(a *app, u *user.User) []string {
	env := []string{"HOME=" + u.HomeDir, "PATH=/usr/local/bin:/usr/bin:/bin"}
	for _, name := range []string{"DEV_HOME", "DEV_ENGINE_ROOT", "DOCKER_CONFIG", "LANG"} {
		if value, ok := a.lookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// setContext makes or removes the docker context of this process's user.
func (a *app) setContext(verb string) error {
	dir, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return err
	}
	docker, host := endpoint.Docker{Dir: dir}, native.DefaultPaths(a.getenv).Host()
	switch verb {
	case "create":
		created, err := docker.WriteContext(host)
		if errors.Is(err, endpoint.ErrForeignContext) {
			a.warn(err.Error() + "; it stays as it is")
			return nil
		}
		if created {
			fmt.Fprintf(a.err, "Docker context %q made: docker --context %[1]s … uses this engine.\n", endpoint.ContextName)
		}
		return err
	case "remove":
		removed, err := docker.RemoveContext(host)
		if removed {
			fmt.Fprintf(a.err, "Docker context %q removed.\n", endpoint.ContextName)
		}
		return err
	}
	return nil
}

func (a *app) stateFile() (string, error) {
	dir, err := a.userDir()
	return filepath.Join(dir, config.StateName), err
}

// remembered is what the user answered before.
func (a *app) remembered() (config.Answer, error) {
	name, err := a.stateFile()
	if err != nil {
		return "", err
	}
	state, err := config.LoadState(name)
	return state.DockerContext, err
}

// remember keeps an answer, unless it is none or known.
func (a *app) remember(answer config.Answer) error {
	known, err := a.remembered()
	if err != nil || answer == config.Unanswered || answer == known {
		return err
	}
	name, err := a.stateFile()
	if err != nil {
		return err
	}
	return config.State{DockerContext: answer}.Save(name)
}
