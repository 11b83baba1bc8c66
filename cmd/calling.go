// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

// What the docker CLI and its plugins have agreed on.
const (
	pluginName     = "docker-compose"
	pluginMetadata = "docker-cli-plugin-metadata"
	// pluginOriginal is set, to the docker CLI's own name, when it runs a plugin.
	pluginOriginal = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
	// pluginSocket is a socket that the docker CLI closes when the plugin is to end.
	pluginSocket = "DOCKER_CLI_PLUGIN_SOCKET"
	pluginVendor = "the dev authors"
)

// commandTree makes the commands for the name that the program was called by: dev; docker-machine or machine, which is `dev machine`;
// docker-compose, which is `dev compose`; or, run by the docker
// CLI as a plugin, docker, which has no command but compose and takes the docker CLI's own flags before it.
func (a *app) commandTree(args []string) *cobra.Command {
	a.offline = len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)
	if tree := a.machineTree(args); tree != nil {
		return tree
	}
	name := strings.TrimSuffix(strings.ToLower(filepath.Base(a.program)), ".exe")
	if name != pluginName {
		return newRootCommand(a)
	}
	switch {
	case len(args) > 0 && slices.Contains(ownCommands(a), args[0]):
		return newRootCommand(a) // the program calling itself: the engine's service, a machine's agent
	case len(args) == 1 && args[0] == pluginMetadata:
		return a.metadataCommand()
	case a.getenv(pluginOriginal) != "":
		return a.pluginTree()
	}
	return a.standaloneTree()
}

// ownCommands are the commands that only dev has.
func ownCommands(a *app) (names []string) {
	shared := map[string]bool{"compose": true, "help": true, "completion": true}
	for _, c := range a.composeCommands() {
		shared[c.Name()] = true
	}
	for _, c := range newRootCommand(a).Commands() {
		if !shared[c.Name()] {
			names = append(names, c.Name())
		}
	}
	return names
}

// standaloneTree is docker-compose as a program of its own.
func (a *app) standaloneTree() *cobra.Command {
	a.dockerName = "docker-compose"
	root := a.mount(&cobra.Command{Use: "docker-compose", Short: "Define and run multi-container applications"})
	d := &dockerFlags{}
	d.register(root, &a.globals, false)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return errors.Join(d.apply(a), a.settle(c)) }
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(writeUsage)
	return root
}

// pluginTree is what the docker CLI runs: its command line as it was typed, "-H tcp://… compose up".
func (a *app) pluginTree() *cobra.Command {
	a.dockerName = "docker compose"
	root := &cobra.Command{Use: "docker", SilenceUsage: true, SilenceErrors: true, TraverseChildren: true}
	root.Flags().SetInterspersed(false)
	d := &dockerFlags{}
	d.register(root, &a.globals, true)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return errors.Join(d.apply(a), a.settle(c)) }
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(writeUsage)
	root.AddCommand(a.mount(&cobra.Command{Use: "compose", Short: "Define and run multi-container applications"}))
	return root
}

// dockerFlags are the docker CLI's own flags that stand before its command.
type dockerFlags struct {
	config, context, logLevel string
	tls, tlsVerify            bool
	ca, cert, key             string
}

// register adds the flags; with all also those that a mount of the compose commands has itself.
func (d *dockerFlags) register(c *cobra.Command, g *globals, all bool) {
	f := c.Flags()
	f.StringVar(&d.config, "config", "", "`FOLDER` of docker's settings")
	f.StringVarP(&d.context, "context", "c", "", "`NAME` of the docker context to use")
	f.StringVarP(&d.logLevel, "log-level", "l", "", "debug, info, warn, error or fatal")
	f.BoolVar(&d.tls, "tls", false, "use TLS")
	f.BoolVar(&d.tlsVerify, "tlsverify", false, "use TLS and check the engine's certificate")
	f.StringVar(&d.ca, "tlscacert", "", "certificate of the authority to trust")
	f.StringVar(&d.cert, "tlscert", "", "certificate to show")
	f.StringVar(&d.key, "tlskey", "", "key of that certificate")
	if all {
		f.StringVarP(&g.host, "host", "H", "", "`ADDRESS` of the engine to use")
		c.PersistentFlags().BoolVarP(&g.debug, "debug", "D", false, "tell what happens inside, on stderr")
	}
	for _, name := range []string{"config", "context", "log-level", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"} {
		_ = f.MarkHidden(name)
	}
}

// apply makes of the flags what the docker CLI's variables would say.
func (d *dockerFlags) apply(a *app) error {
	set := func(name, value string) { a.env = append(slices.Clip(a.env), name+"="+value) }
	if d.config != "" {
		dir, err := a.path(d.config)
		if err != nil {
			return err
		}
		set("DOCKER_CONFIG", dir)
	}
	if d.context != "" {
		if a.host != "" {
			return usagef("--host and --context exclude each other")
		}
		set("DOCKER_CONTEXT", d.context)
		set("DOCKER_HOST", "") // which would win over a context
	}
	if d.tls {
		set("DOCKER_TLS", "1")
	}
	if d.tlsVerify {
		set("DOCKER_TLS_VERIFY", "1")
	}
	if d.logLevel == "debug" {
		a.debug = true
	}
	return d.certificates(set)
}

// certificates finds the folder that holds the files of the TLS flags, which is what DOCKER_CERT_PATH names.
func (d *dockerFlags) certificates(set func(name, value string)) error {
	dir := ""
	for _, f := range []struct{ path, name string }{{d.ca, "ca.pem"}, {d.cert, "cert.pem"}, {d.key, "key.pem"}} {
		if f.path == "" {
			continue
		}
		if filepath.Base(f.path) != f.name || dir != "" && dir != filepath.Dir(f.path) {
			return withHint(fmt.Errorf("the certificate %q cannot be used from there", f.path),
				"put ca.pem, cert.pem and key.pem into one folder and name it in DOCKER_CERT_PATH")
		}
		dir = filepath.Dir(f.path)
	}
	if dir != "" {
		set("DOCKER_CERT_PATH", dir)
	}
	return nil
}

// metadataCommand says what the docker CLI wants to know of a plugin.
func (a *app) metadataCommand() *cobra.Command {
	return &cobra.Command{Use: pluginMetadata, RunE: func(*cobra.Command, []string) error { return writeJSON(a.out, ownMetadata()) }, Args: cobra.ArbitraryArgs}
}

type metadata struct {
	SchemaVersion    string
	Vendor           string
	Version          string
	ShortDescription string
}

func ownMetadata() metadata {
	return metadata{
		SchemaVersion: "0.1.0", Vendor: pluginVendor, Version: "v" + compose.DockerComposeVersion, ShortDescription: "Docker Compose (dev " + Version + ")",
	}
}

// followDockerCLI ends the command when the docker CLI that runs it ends: it closes a socket then, because a signal that it got alone does not
// reach a plugin. It returns what undoes that.
func (a *app) followDockerCLI() (stop func()) {
	address := a.getenv(pluginSocket)
	if address == "" || a.interrupts == nil {
		return func() {}
	}
	conn, err := net.Dial("unix", address)
	if err != nil {
		return func() {} // a docker CLI without it, or one that is gone
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(io.Discard, conn); err == nil {
			a.interrupts.send(syscall.SIGTERM)
		}
	}()
	return func() {
		_ = conn.Close()
		<-done
	}
}
