// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// tailLines is how many of a container's last lines an explanation shows.
const tailLines = 10

func newWhyCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "why [OPTIONS] SERVICE",
		Short:   "Say why a service runs, waits, restarts or is unhealthy",
		GroupID: groupLook,
		Long: `Says in what state the containers of a service are and why: their exit code, their
last health check, their last lines of output, what the service waits for, and what
dev up would do about it.`,
		Args:              takes(1, 1, "SERVICE"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runWhy(c.Context(), args[0], asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "show it as JSON")
	return c
}

func (a *app) runWhy(ctx context.Context, service string, asJSON bool) error {
	p, name, err := a.loadOrName(ctx)
	if err != nil {
		return err
	}
	if p != nil {
		if err := checkServices(p, []string{service}); err != nil {
			return err
		}
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	x, err := a.why(ctx, e, name, p, service)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.out, jsonOfWhy(x))
	}
	return a.printWhy(a.out, x, true)
}

// why collects what the engine knows of a service and of what it depends on, and explains it.
func (a *app) why(ctx context.Context, e *engine.Client, name string, p *types.Project, service string) (compose.Explanation, error) {
	query := compose.Query{Project: name}
	if p != nil {
		query = compose.QueryFor(p)
	}
	have, err := e.Observe(ctx, query)
	if err != nil {
		return compose.Explanation{}, err
	}
	about := map[string]bool{service: true}
	if p != nil {
		for _, dep := range p.Services[service].GetDependencies() {
			about[dep] = true
		}
	}
	details := make([]compose.ContainerDetails, len(have.Containers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, c := range have.Containers {
		if about[c.Service()] && !c.OneOff() {
			g.Go(func() (err error) {
				details[i], err = e.Inspect(gctx, c.ID, tailLines)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return compose.Explanation{}, err
	}
	o := compose.WhyOptions{Details: map[string]compose.ContainerDetails{}, Plan: compose.PlanOptions{IgnoreOrphans: true}}
	for _, d := range details {
		if d.ID != "" {
			o.Details[d.ID] = d
		}
	}
	return compose.Why(name, p, have, service, o)
}

// printWhy shows an explanation: the sentence that sums it up, each container, what is waited for, and with next what `up` would do.
func (a *app) printWhy(w io.Writer, x compose.Explanation, next bool) error {
	paint := a.painter(w, false)
	var b strings.Builder
	b.WriteString(paint(bold, x.Summary) + "\n")
	for _, c := range x.Containers {
		if len(x.Containers) > 1 || !strings.Contains(x.Summary, c.Text) {
			fmt.Fprintf(&b, "  %s: %s\n", c.Name, paint(storyStyle(c), c.Text))
		}
		printEvidence(&b, c)
	}
	for _, wait := range x.Waits {
		mark := paint(green, "met")
		if !wait.Satisfied {
			mark = paint(yellow, "not met")
		}
		optional := ""
		if wait.Optional {
			optional = " (optional)"
		}
		fmt.Fprintf(&b, "  depends on %s, %s%s: %s; %s\n", wait.Service, conditionWords(wait.Condition), optional, mark, wait.Observed)
	}
	if next {
		printNext(&b, x)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func storyStyle(c compose.ContainerStory) string {
	if c.Trouble {
		return red
	}
	return ""
}

// printEvidence shows what a container's story is told from: its last check and its last lines.
func printEvidence(b *strings.Builder, c compose.ContainerStory) {
	if p := c.LastProbe; p != nil && (c.Trouble || p.ExitCode != 0) {
		fmt.Fprintf(b, "    last check: exit code %d\n", p.ExitCode)
		printQuoted(b, strings.Split(strings.TrimSpace(p.Output), "\n"))
	}
	if c.Details != nil && c.Trouble && len(c.Details.Log) > 0 {
		b.WriteString("    last output:\n")
		printQuoted(b, c.Details.Log)
	}
}

func printQuoted(b *strings.Builder, lines []string) {
	for _, line := range lines {
		if line != "" {
			b.WriteString("      | " + strings.TrimRight(line, "\r") + "\n")
		}
	}
}

// conditionWords says a condition of depends_on as part of a sentence.
func conditionWords(c compose.Condition) string {
	switch c {
	case compose.ConditionHealthy:
		return "which must be healthy"
	case compose.ConditionCompleted:
		return "which must have completed"
	}
	return "which must have started"
}

func printNext(b *strings.Builder, x compose.Explanation) {
	switch {
	case x.NextError != nil:
		fmt.Fprintf(b, "  dev up %s would fail: %v\n", x.Service, x.NextError)
	case len(x.Next) > 0:
		fmt.Fprintf(b, "  dev up %s would:\n", x.Service)
		for _, t := range groupOps(x.Next) {
			line := "    " + t.verb + " " + t.target
			if t.reason != "" {
				line += ": " + t.reason
			}
			b.WriteString(line + "\n")
			for _, c := range t.changes {
				b.WriteString("      " + c.String() + "\n")
			}
		}
	case x.Provisional:
		fmt.Fprintf(b, "  dev up %s would recreate it if its image changes\n", x.Service)
	}
}

// jsonWhy is an explanation for scripts; docs/cli.md describes it.
type jsonWhy struct {
	Service    string         `json:"service"`
	Summary    string         `json:"summary"`
	Containers []jsonStory    `json:"containers"`
	Waits      []compose.Wait `json:"waits"`
	Next       []jsonOp       `json:"next"`
	NextError  string         `json:"next_error,omitempty"`
}

type jsonStory struct {
	Name     string         `json:"name"`
	ID       string         `json:"id"`
	State    string         `json:"state"`
	Health   string         `json:"health,omitempty"`
	ExitCode int            `json:"exit_code"`
	Text     string         `json:"text"`
	Trouble  bool           `json:"trouble"`
	Probe    *compose.Probe `json:"last_check,omitempty"`
	Log      []string       `json:"log,omitempty"`
}

func jsonOfWhy(x compose.Explanation) jsonWhy {
	j := jsonWhy{Service: x.Service, Summary: x.Summary, Containers: []jsonStory{}, Waits: x.Waits, Next: []jsonOp{}}
	for _, c := range x.Containers {
		s := jsonStory{
			Name: c.Name, ID: c.ID, State: string(c.State), Health: string(c.Health), ExitCode: c.ExitCode, Text: c.Text, Trouble: c.Trouble, Probe: c.LastProbe,
		}
		if c.Details != nil {
			s.Log = c.Details.Log
		}
		j.Containers = append(j.Containers, s)
	}
	for _, op := range x.Next {
		j.Next = append(j.Next, jsonOfOp(op))
	}
	if x.NextError != nil {
		j.NextError = x.NextError.Error()
	}
	return j
}
