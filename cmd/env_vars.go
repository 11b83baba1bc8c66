// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

func newEnvVarsCommand(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "vars",
		Short: "Show variables with the addresses of the environment",
		Long: `Shows DEV_ENV, COMPOSE_PROJECT_NAME and, for each published port, DEV_PORT_SERVICE_PORT
(DEV_PORT_dns_53_udp for other protocols than tcp). Ports that the engine chooses
are shown while their containers run. Compose files may use the variables, too.`,
		Example: `  eval "$(dev env vars --format shell)"
  curl localhost:$DEV_PORT_web_80`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runEnvVars(c.Context(), format)
		},
	}
	c.Flags().StringVar(&format, "format", "env", "env (NAME=VALUE), shell (export NAME='VALUE') or json")
	return c
}

func (a *app) runEnvVars(ctx context.Context, format string) error {
	vars, err := a.environmentVars(ctx)
	if err != nil {
		return err
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		switch format {
		case "env":
			lines = append(lines, name+"="+vars[name])
		case "shell": // no value has a quote in it: names are checked, ports are numbers
			lines = append(lines, fmt.Sprintf("export %s='%s'", name, vars[name]))
		case "json":
		default:
			return unknownFormat(format, "env", "shell", "json")
		}
	}
	if format == "json" {
		return writeJSON(a.out, vars)
	}
	return a.printLines(lines)
}

// environmentVars are the variables that tell of the environment.
func (a *app) environmentVars(ctx context.Context) (map[string]string, error) {
	h, err := a.environmentHere(ctx)
	if err != nil {
		return nil, err
	}
	vars := compose.PortVariables(h.p)
	vars[environmentVariable], vars["COMPOSE_PROJECT_NAME"] = h.place.name, h.p.Name
	if have, err := a.observeContainers(ctx, h.p.Name); err == nil {
		publishedByEngine(vars, have.Containers)
	} else {
		a.logger().Debug("ports that the engine chose are not known", "error", err)
	}
	return vars, nil
}

func newEnvExecCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "exec COMMAND [ARGS...]",
		Short: "Run a command on this host with the environment's variables",
		Long:  `Runs COMMAND with the variables that dev env vars shows. The exit status is the command's.`,
		Example: `  dev env exec npm test
  dev env exec sh -c 'curl localhost:$DEV_PORT_web_80'`,
		Args: takes(1, -1, "COMMAND"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runEnvExec(c.Context(), args)
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) runEnvExec(ctx context.Context, command []string) error {
	vars, err := a.environmentVars(ctx)
	if err != nil {
		return err
	}
	env := slices.Clone(a.env)
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("run %q: %w", command[0], err)
	}
	a.restoreTerminal()
	return replaceProcess(path, command, env)
}
