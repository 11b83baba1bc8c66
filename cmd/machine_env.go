// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/shellenv"
)

// machineAddress is where a running machine's engine answers, as docker's variables and flags say it.
type machineAddress struct {
	name string
	host string
	// certs is the folder with the client's certificates; empty for the local socket, which needs none.
	certs string
}

// publishedAt is the address at which published ports answer: every machine's appear on this host.
const publishedAt = "127.0.0.1"

// noProxyVariable is the list of addresses without proxy as it is now, under the name that the user has.
func noProxyVariable(getenv func(string) string) (name, value string) {
	if value = getenv("no_proxy"); value != "" {
		return "no_proxy", value
	}
	return "NO_PROXY", getenv("NO_PROXY")
}

// addNoProxy adds an address to a list of addresses.
func addNoProxy(list, address string) string {
	switch {
	case list == "":
		return address
	case slices.Contains(strings.Split(list, ","), address):
		return list
	}
	return list + "," + address
}

// variables are what a shell needs to use the engine at an address, in docker-machine's order. What is set from another machine, and means
// nothing for this one, is taken away.
func (x machineAddress) variables(goos string, noProxy bool, getenv func(string) string) []shellenv.Variable {
	var vars []shellenv.Variable
	set := func(name, value string) {
		if value == "" && getenv(name) == "" {
			return
		}
		vars = append(vars, shellenv.Variable{Name: name, Value: value, Unset: value == ""})
	}
	verify := ""
	if x.certs != "" {
		verify = "1"
	}
	set("DOCKER_TLS_VERIFY", verify)
	set("DOCKER_HOST", x.host)
	set("DOCKER_CERT_PATH", x.certs)
	set("DOCKER_MACHINE_NAME", x.name)
	if goos == "windows" {
		set("COMPOSE_CONVERT_WINDOWS_PATHS", "true")
	}
	if noProxy {
		name, value := noProxyVariable(getenv)
		set(name, addNoProxy(value, publishedAt))
	}
	return vars
}

// unsetVariables takes away what variables sets. The list of addresses without proxy is the user's own: with noProxy it loses only ours.
func unsetVariables(goos string, noProxy bool, getenv func(string) string) []shellenv.Variable {
	names := []string{"DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME"}
	if goos == "windows" {
		names = append(names, "COMPOSE_CONVERT_WINDOWS_PATHS")
	}
	var vars []shellenv.Variable
	for _, name := range names {
		vars = append(vars, shellenv.Variable{Name: name, Unset: true})
	}
	if noProxy {
		name, value := noProxyVariable(getenv)
		rest := strings.Join(slices.DeleteFunc(strings.Split(value, ","), func(s string) bool { return s == publishedAt }), ",")
		vars = append(vars, shellenv.Variable{Name: name, Value: rest, Unset: rest == ""})
	}
	return vars
}

// address is where a machine's engine answers; it must run.
func (m *machines) address(ctx context.Context, one *machine.Machine, tcp bool) (machineAddress, error) {
	st, err := m.running(ctx, one)
	if err != nil {
		return machineAddress{}, err
	}
	x := machineAddress{name: one.Name, host: st.Endpoint}
	if tcp {
		if st.Agent == nil || st.Agent.TCP == "" {
			return x, withHint(fmt.Errorf("machine %q serves no TCP address", one.Name), "leave out --tcp: its local socket is %s", st.Endpoint)
		}
		x.host, x.certs = "tcp://"+st.Agent.TCP, one.Dir.TLS()
	}
	return x, nil
}

type machineEnv struct {
	shell          string
	unset, noProxy bool
	tcp, swarm     bool
}

func newMachineEnvCommand(m *machines) *cobra.Command {
	var o machineEnv
	c := &cobra.Command{
		Use:   "env [OPTIONS] [MACHINE]",
		Short: "Print the commands that let a shell use a machine's engine",
		Long: `Print the commands that set a shell's variables so that docker, docker compose and
everything else that reads DOCKER_HOST uses the machine's engine. It is the
engine's local socket; with --tcp it is a TCP address on this host, protected by
TLS, for programs that know no local sockets.`,
		Example: `  eval $(dev machine env)                          sh, bash, zsh
  dev machine env box | source                     fish
  & dev machine env | Invoke-Expression            PowerShell
  eval $(dev machine env -u)                       undo it`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE:              func(c *cobra.Command, args []string) error { return m.runEnv(c, o, args) },
	}
	f := c.Flags()
	f.StringVar(&o.shell, "shell", "", "kind of shell: bash, fish, cmd, powershell, tcsh, emacs (default: the one you use)")
	f.BoolVarP(&o.unset, "unset", "u", false, "take the variables away instead")
	f.BoolVar(&o.noProxy, "no-proxy", false, "add the machine's address to NO_PROXY")
	f.BoolVar(&o.tcp, "tcp", false, "use the TCP address protected by TLS")
	addSwarmFlag(c, &o.swarm)
	return c
}

// addSwarmFlag is docker-machine's flag for standalone Swarm.
func addSwarmFlag(c *cobra.Command, swarm *bool) {
	c.Flags().BoolVar(swarm, "swarm", false, "not there any more: standalone Swarm")
	_ = c.Flags().MarkHidden("swarm")
}

// errSwarm refuses what only standalone Swarm had.
func errSwarm() error {
	return withHint(errors.New("standalone Swarm is gone: no engine has it since Docker 18"), "swarm mode is in every engine: docker swarm init")
}

func (m *machines) runEnv(c *cobra.Command, o machineEnv, args []string) error {
	if o.swarm {
		return errSwarm()
	}
	shell := shellenv.Detect(m.getenv)
	if o.shell != "" {
		shell = shellenv.Parse(o.shell)
	}
	vars := unsetVariables(runtime.GOOS, o.noProxy, m.getenv)
	if o.unset && len(args) > 0 {
		return errors.New("expected no machine name when the -u flag is present")
	}
	if !o.unset {
		one, err := m.one(args)
		if err != nil {
			return err
		}
		x, err := m.address(c.Context(), one, o.tcp)
		if err != nil {
			return err
		}
		vars = x.variables(runtime.GOOS, o.noProxy, m.getenv)
	}
	_, err := io.WriteString(m.out, shellenv.Script(shell, vars, os.Args))
	return err
}

func newMachineConfigCommand(m *machines) *cobra.Command {
	var tcp, swarm bool
	c := &cobra.Command{
		Use:               "config [OPTIONS] [MACHINE]",
		Short:             "Print the flags that let docker use a machine's engine",
		Example:           "  docker $(dev machine config box) ps",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			if swarm {
				return errSwarm()
			}
			one, err := m.one(args)
			if err != nil {
				return err
			}
			x, err := m.address(c.Context(), one, tcp)
			if err != nil {
				return err
			}
			return m.printLines(x.flags())
		},
	}
	c.Flags().BoolVar(&tcp, "tcp", false, "use the TCP address protected by TLS")
	addSwarmFlag(c, &swarm)
	return c
}

// flags are the docker CLI's. They stand without quotes, which neither a shell takes off what $(…) gives nor, any more, the docker CLI.
func (x machineAddress) flags() []string {
	if x.certs == "" {
		return []string{"-H=" + x.host}
	}
	file := func(name string) string { return x.certs + string(os.PathSeparator) + name }
	return []string{"--tlsverify", "--tlscacert=" + file("ca.pem"), "--tlscert=" + file("cert.pem"), "--tlskey=" + file("key.pem"), "-H=" + x.host}
}

func newMachineURLCommand(m *machines) *cobra.Command {
	var tcp bool
	c := &cobra.Command{
		Use:               "url [OPTIONS] [MACHINE]",
		Short:             "Print the address of a machine's engine",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			one, err := m.one(args)
			if err != nil {
				return err
			}
			x, err := m.address(c.Context(), one, tcp)
			if err != nil {
				return err
			}
			return m.printLines([]string{x.host})
		},
	}
	c.Flags().BoolVar(&tcp, "tcp", false, "print the TCP address protected by TLS")
	return c
}

func newMachineIPCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:   "ip [MACHINE...]",
		Short: "Print the address at which a machine's published ports answer",
		Long: `Print the address at which a machine's published ports answer, a line for each
machine. Ports that containers publish appear on this host: it is 127.0.0.1.`,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			return m.eachLine(c.Context(), args, func(ctx context.Context, one *machine.Machine) (string, error) {
				_, err := m.running(ctx, one)
				return publishedAt, err
			})
		},
	}
}

func newMachineActiveCommand(m *machines) *cobra.Command {
	var timeout int
	c := &cobra.Command{
		Use:   "active [OPTIONS]",
		Short: "Print which machine is in use",
		Long: `Print the machine whose engine is in use: the one that DOCKER_HOST leads to, else
the one that "use" named.`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			rows, err := m.rows(c.Context(), inSeconds(timeout))
			if err != nil {
				return err
			}
			for _, r := range rows {
				if r.ActiveHost {
					return m.printLines([]string{r.Name})
				}
			}
			if slices.ContainsFunc(rows, func(r machineRow) bool { return r.State == stateTimeout }) {
				return errors.New("Error getting active host: timeout") // docker-machine's words, which scripts look for
			}
			return errors.New("No active host found") //nolint:staticcheck // docker-machine's words, which scripts look for
		},
	}
	c.Flags().IntVarP(&timeout, "timeout", "t", 10, "`SECONDS` to wait for each machine's answer")
	return c
}
