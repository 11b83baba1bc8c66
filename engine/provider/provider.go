// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package provider runs the external programs that some services and all models of a Compose project are left to: providers, in the protocol of
// docker compose's extensions, and the docker CLI's model plugin.
//
// A provider is started as `PROGRAM compose --project-name=NAME up --OPTION=VALUE… SERVICE` and tells what goes on in JSON messages on its standard
// output: error, info, debug, and setenv and rawsetenv, which give variables to the services that depend on its own.
package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
)

// Commands of a provider.
const (
	Up   = "up"
	Down = "down"
	Stop = "stop"
)

// messages are the types of messages that are understood, which providers are told of.
var messages = []string{"error", "info", "debug", "setenv", "rawsetenv"}

// Host runs programs for projects.
type Host struct {
	// Environ is the environment for the programs, as os.Environ returns it: it should name the engine in DOCKER_HOST.
	Environ []string
	// PluginDirs are the folders of the docker CLI's plugins, searched before PATH.
	PluginDirs []string
	// Say takes what the programs tell of their progress; nil discards.
	Say func(text string)
}

// NotFoundError tells that a program is not there.
type NotFoundError struct {
	What, Program string
	Dirs          []string
}

// Error names the program.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s needs the program %q, which is not there", e.What, e.Program)
}

// Hint says where it may be.
func (e *NotFoundError) Hint() string {
	return fmt.Sprintf("install it into one of %s, or into PATH", strings.Join(e.Dirs, ", "))
}

// find finds the plugin docker-NAME, or else, unless pluginOnly, the program NAME.
func (h *Host) find(what, name string, pluginOnly bool) (string, error) {
	for _, dir := range h.PluginDirs {
		if path, err := exec.LookPath(filepath.Join(dir, "docker-"+name)); err == nil {
			return path, nil
		}
	}
	programs := []string{"docker-" + name}
	if !pluginOnly {
		programs = append(programs, name)
	}
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			return path, nil
		}
	}
	return "", &NotFoundError{What: what, Program: programs[len(programs)-1], Dirs: h.PluginDirs}
}

// Run has the provider of a service do a command, and returns the variables that it gives. A provider that says it has no such command is not
// asked.
func (h *Host) Run(ctx context.Context, p *types.Project, s types.ServiceConfig, command string) (compose.Variables, error) {
	what := fmt.Sprintf("service %q", s.Name)
	if s.Provider.Type == "compose" || strings.ContainsAny(s.Provider.Type, `/\`) {
		return compose.Variables{}, fmt.Errorf("%s: %q is no provider", what, s.Provider.Type)
	}
	program, err := h.find(what, s.Provider.Type, false)
	if err != nil {
		return compose.Variables{}, err
	}
	known := h.metadata(ctx, program, p)
	if command == Stop && known.Stop == nil {
		return compose.Variables{}, nil
	}
	args, err := known.arguments(p, s, command)
	if err != nil {
		return compose.Variables{}, fmt.Errorf("%s: %w", what, err)
	}
	vars, err := h.converse(ctx, p, program, args)
	if err != nil {
		return vars, fmt.Errorf("%s: %s %s: %w", what, s.Provider.Type, command, err)
	}
	return vars, nil
}

// metadata is what a provider says of itself: the parameters that its commands know.
type metadata struct {
	Up   *commandMetadata `json:"up"`
	Down *commandMetadata `json:"down"`
	Stop *commandMetadata `json:"stop"`
}

type commandMetadata struct {
	Parameters []parameter `json:"parameters"`
}

type parameter struct {
	Name     string `json:"name"`
	Required bool   `json:"required"`
}

// knows reports whether the command takes an option; of a provider that does not tell, every command does.
func (c *commandMetadata) knows(option string) bool {
	return c == nil || slices.ContainsFunc(c.Parameters, func(p parameter) bool { return p.Name == option })
}

// metadataTimeout bounds a question that providers may not know.
const metadataTimeout = 10 * time.Second

// metadata asks the provider what it knows; one that does not answer gets all options.
func (h *Host) metadata(ctx context.Context, program string, p *types.Project) metadata {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	out, err := h.command(ctx, p, program, "compose", "metadata").Output()
	var m metadata
	if err != nil || json.Unmarshal(out, &m) != nil {
		return metadata{}
	}
	return m
}

// arguments are what the provider is started with. Options that its command does not know are for another of its commands.
func (m metadata) arguments(p *types.Project, s types.ServiceConfig, command string) ([]string, error) {
	known := map[string]*commandMetadata{Up: m.Up, Down: m.Down, Stop: m.Stop}[command]
	args := []string{"compose", "--project-name=" + p.Name, command}
	if known != nil {
		for _, param := range known.Parameters {
			if _, given := s.Provider.Options[param.Name]; param.Required && !given {
				return nil, fmt.Errorf("provider.options.%s is missing, which %s needs", param.Name, s.Provider.Type)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Provider.Options)) {
		if !known.knows(name) {
			continue
		}
		for _, value := range s.Provider.Options[name] {
			args = append(args, fmt.Sprintf("--%s=%s", name, value))
		}
	}
	return append(args, s.Name), nil
}

// stopGrace is what a program gets to end when it is interrupted.
const stopGrace = 10 * time.Second

func (h *Host) command(ctx context.Context, p *types.Project, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(append(p.Environment.Values(), h.Environ...), "COMPOSE_PROVIDER_MESSAGES="+strings.Join(messages, ","))
	c.Dir = p.WorkingDir
	c.WaitDelay = stopGrace
	terminate(c)
	return c
}

// message is one line of a provider.
type message struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// errorTail bounds how much of a program's standard error is kept for its error.
const errorTail = 4 << 10

// converse runs the provider and takes its messages.
func (h *Host) converse(ctx context.Context, p *types.Project, program string, args []string) (compose.Variables, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := h.command(ctx, p, program, args...)
	var stderr tail
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return compose.Variables{}, err
	}
	if err := c.Start(); err != nil {
		return compose.Variables{}, err
	}
	vars, said := h.listen(out)
	if said != nil {
		cancel() // it is not understood: it need not go on
	}
	err = c.Wait()
	switch {
	case said != nil:
		return vars, said
	case ctx.Err() != nil:
		return vars, ctx.Err()
	case err != nil && stderr.String() != "":
		return vars, fmt.Errorf("%w: %s", err, stderr.String())
	}
	return vars, err
}

// listen takes messages until the end of the output.
func (h *Host) listen(r io.Reader) (compose.Variables, error) {
	vars := compose.Variables{Prefixed: map[string]string{}, Raw: map[string]string{}}
	for d := json.NewDecoder(r); ; {
		var m message
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return vars, nil
		}
		if err != nil {
			return vars, fmt.Errorf("read its messages: %w", err)
		}
		switch m.Type {
		case "error":
			return vars, errors.New(m.Message)
		case "info", "debug":
			if h.Say != nil && m.Type == "info" {
				h.Say(m.Message)
			}
		case "setenv", "rawsetenv":
			name, value, ok := strings.Cut(m.Message, "=")
			if !ok {
				return vars, fmt.Errorf("its message %s %q is not NAME=VALUE", m.Type, m.Message)
			}
			if m.Type == "setenv" {
				vars.Prefixed[name] = value
			} else {
				vars.Raw[name] = value
			}
		default:
			return vars, fmt.Errorf("it sent a message of the unknown type %q; known are %s", m.Type, strings.Join(messages, ", "))
		}
	}
}

// tail keeps the last bytes of what is written to it.
type tail struct{ buf bytes.Buffer }

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.buf.Write(b)
	if more := t.buf.Len() - errorTail; more > 0 {
		t.buf.Next(more)
	}
	return len(b), nil
}

// String is the text, trimmed.
func (t *tail) String() string { return strings.TrimSpace(t.buf.String()) }
