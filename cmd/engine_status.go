// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/native"
	"github.com/seed71221737/dev/engine/native/supervise"
)

// engineStatus is what `dev engine status` shows.
type engineStatus struct {
	Engine    *native.Status       `json:"engine,omitempty"` // nil where none can run
	Endpoints []endpoint.Candidate `json:"endpoints"`
	Error     string               `json:"error,omitempty"` // why no engine serves a command
}

func newEngineStatusCommand(a *app) *cobra.Command {
	var format formatFlag
	c := &cobra.Command{
		Use:   "status [OPTIONS]",
		Short: "Show whether the engine runs, and which engine serves a command and why",
		Long: `Show whether the engine that dev carries runs, what happened to its components,
and which engine serves a command, and why. Exits with 3 when dev's own engine
does not run.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.engineStatus(c.Context(), format.json()) },
	}
	format.add(c)
	return c
}

// statusDeadline bounds questions to an engine that may be in trouble.
const statusDeadline = 15 * time.Second

func (a *app) engineStatus(ctx context.Context, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, statusDeadline)
	defer cancel()
	var st engineStatus
	running := false
	if own, err := a.service().Status(ctx); err == nil {
		st.Engine, running = &own, own.Up()
	}
	choice, err := a.decideEngine(ctx, true)
	st.Endpoints = choice.Candidates
	if err != nil {
		st.Error = err.Error()
	}
	if asJSON {
		err = json.NewEncoder(a.out).Encode(st)
	} else {
		err = a.printStatus(st)
	}
	if err == nil && !running {
		return exitStatus(native.ExitNotRunning)
	}
	return err
}

func (a *app) printStatus(st engineStatus) error {
	paint := a.painter(a.out, false)
	if st.Engine == nil {
		fmt.Fprintln(a.out, "dev's engine: runs natively only on Linux")
	} else {
		printEngine(a.out, paint, *st.Engine)
	}
	fmt.Fprintln(a.out, "\nWhich engine serves a command (the first that is there):")
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, c := range st.Endpoints {
		mark := " "
		if c.Chosen {
			mark = "*"
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\n", mark, strings.TrimSpace(string(c.Source)+" "+c.Name), c.Host, c.Why)
	}
	if st.Error != "" {
		fmt.Fprintln(w, paint(red, st.Error))
	}
	return w.Flush()
}

func printEngine(out io.Writer, paint paint, st native.Status) {
	style := map[native.Phase]string{native.PhaseRunning: green, native.PhaseStopped: faint}[st.Phase]
	if style == "" {
		style = yellow
	}
	fmt.Fprintf(out, "dev's engine: %s\n", paint(style, string(st.Phase)))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("Socket", "%s", st.Host)
	if r := st.Report; r != nil {
		row("Since", "%s", since(r.Since))
		row("Version", "%s (Docker Engine %s)", r.Version, st.Engine)
		row("Data", "%s", r.DataRoot)
		row("Firewall", "%s", r.Firewall)
		row("Live restore", "%s", map[bool]string{true: "on: containers outlive a restart of the engine", false: "off"}[r.LiveRestore])
	} else {
		row("Data", "%s", st.Root)
	}
	if d := st.Disk; d != nil {
		row("Disk", "images %s, containers %s, volumes %s, build cache %s; %s free", units.HumanSize(float64(d.Images)),
			units.HumanSize(float64(d.Containers)), units.HumanSize(float64(d.Volumes)), units.HumanSize(float64(d.BuildCache)), units.HumanSize(float64(d.Free)))
	}
	if st.Report != nil {
		for _, c := range st.Report.Components {
			row(c.Name, "%s", component(c))
		}
	}
	_ = w.Flush() // to a.out, whose errors the caller sees
	if st.Report != nil {
		printExits(out, st.Report.Components)
	}
	for _, p := range st.Problems {
		fmt.Fprintln(out, paint(yellow, "  ! "+p))
	}
}

// component is a component's state in one line.
func component(c supervise.State) string {
	text := fmt.Sprintf("%s since %s", c.Phase, since(c.Since))
	if c.PID != 0 {
		text += fmt.Sprintf(", process %d", c.PID)
	}
	if c.Restarts > 0 {
		text += fmt.Sprintf(", restarted %d times", c.Restarts)
	}
	return text
}

// printExits says how components ended the last time.
func printExits(out io.Writer, components []supervise.State) {
	for _, c := range components {
		if c.LastExit == nil {
			continue
		}
		fmt.Fprintf(out, "  %s ended %s: %s\n", c.Name, since(c.LastExit.At), c.LastExit.Reason)
		for _, line := range c.LastExit.Log {
			fmt.Fprintf(out, "    | %s\n", line)
		}
	}
}

// since is a moment, and how long ago it was.
func since(t time.Time) string {
	return fmt.Sprintf("%s (%s ago)", t.Local().Format(time.DateTime), units.HumanDuration(time.Since(t)))
}
