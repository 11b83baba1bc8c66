// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
)

// Models makes the models that the project's services use available, by the docker CLI's model plugin: it pulls what is missing, configures, and
// returns the endpoint that serves them.
func (h *Host) Models(ctx context.Context, p *types.Project) (endpoint string, err error) {
	program, err := h.find("models", "model", true)
	if err != nil {
		return "", err
	}
	var status struct {
		Endpoint string `json:"endpoint"`
	}
	if err := h.ask(ctx, p, program, &status, "status", "--json"); err != nil {
		return "", err
	}
	var there []struct {
		Tags []string `json:"tags"`
	}
	if err := h.ask(ctx, p, program, &there, "ls", "--json"); err != nil {
		return "", err
	}
	var tags []string
	for _, m := range there {
		tags = append(tags, m.Tags...)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Models)) {
		m := p.Models[name]
		if !slices.Contains(tags, m.Model) {
			if h.Say != nil {
				h.Say("Pulling model " + m.Model)
			}
			if err := h.ask(ctx, p, program, nil, "pull", m.Model); err != nil {
				return "", err
			}
		}
		if args := configure(m); args != nil {
			if err := h.ask(ctx, p, program, nil, args...); err != nil {
				return "", err
			}
		}
	}
	return status.Endpoint, nil
}

// configure is the command that configures a model, nil if there is nothing to.
func configure(m types.ModelConfig) []string {
	if m.ContextSize == 0 && len(m.RuntimeFlags) == 0 {
		return nil
	}
	args := []string{"configure"}
	if m.ContextSize > 0 {
		args = append(args, "--context-size", strconv.Itoa(m.ContextSize))
	}
	args = append(args, m.Model)
	if len(m.RuntimeFlags) > 0 {
		args = append(append(args, "--"), m.RuntimeFlags...)
	}
	return args
}

// ask runs the plugin and reads its answer into v, unless that is nil.
func (h *Host) ask(ctx context.Context, p *types.Project, program string, v any, args ...string) error {
	c := h.command(ctx, p, program, args...)
	var stderr tail
	c.Stderr = &stderr
	out, err := c.Output()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && stderr.String() != "":
		return fmt.Errorf("docker model %s: %w: %s", args[0], err, stderr.String())
	case err != nil:
		return fmt.Errorf("docker model %s: %w", args[0], err)
	case v == nil:
		return nil
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("docker model %s: read its answer: %w", args[0], err)
	}
	return nil
}
