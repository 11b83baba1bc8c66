// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/cmd/tui"
	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newUICommand(a *app) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:     "ui",
		Short:   "Look at the application, and act on it, in the terminal",
		GroupID: groupLook,
		Long: `Shows the services with their health, ports and use, and the output of the selected
one. Keys restart, stop, start and rebuild it, apply the Compose file, open a shell,
search the output. What a key does is shown first and waits for y.`,
		Example: `  dev ui
  dev ui --once          the same as text, once`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runUI(c.Context(), once)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "show it once, as text")
	return c
}

func (a *app) runUI(ctx context.Context, once bool) error {
	if !once && (!isTerminal(a.in) || !a.moves(a.out)) {
		return withHint(errors.New("the interface needs a terminal"), "dev ui --once shows it as text")
	}
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, needs(!once))
	if err != nil {
		return err
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(ctx)
	// What is said meanwhile would be written over the screen.
	quiet := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: a.env, cwd: a.cwd, globals: a.globals}
	s := &uiSource{a: quiet, ctx: ctx, p: p, e: e, followed: map[string]*use{}}
	defer s.tasks.Wait()
	defer cancel()
	title := "dev · " + p.Name
	if once {
		return a.showOnce(ctx, s, title)
	}
	err = tui.Run(ctx, s, tui.Options{Title: title, In: a.in, Out: a.out, Environ: a.env, Color: a.colorful(a.out)})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// onceLines is how many lines of output --once shows of each container.
const onceLines = 5

// showOnce shows the services and their last output as text.
func (a *app) showOnce(ctx context.Context, s *uiSource, title string) error {
	have, err := s.e.Observe(ctx, compose.Query{Project: s.p.Name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	containers := slices.DeleteFunc(have.Containers, compose.Container.OneOff)
	s.measure(ctx, containers)
	lines := append([]string{title}, tui.Table(s.rows(containers))...)
	lines = append(lines, "")
	err = s.e.Logs(ctx, containers, engine.LogsOptions{Tail: fmt.Sprint(onceLines)}, func(l engine.LogLine) {
		lines = append(lines, logName(l.Container)+" | "+l.Text)
	})
	return errors.Join(err, a.printLines(lines))
}

// uiSource is the application that the interface shows.
type uiSource struct {
	a   *app
	ctx context.Context //nolint:containedctx // the life of what follows the containers' use
	e   *engine.Client

	mu       sync.Mutex
	p        *types.Project
	followed map[string]*use // by container
	tasks    sync.WaitGroup
}

// use is what a container uses, followed until it ends.
type use struct {
	stats engine.Stats
	known bool
}

// Services implements tui.Source.
func (s *uiSource) Services(ctx context.Context) ([]tui.Service, error) {
	have, err := s.e.Observe(ctx, compose.Query{Project: s.project().Name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return nil, err
	}
	containers := slices.DeleteFunc(have.Containers, compose.Container.OneOff)
	for _, c := range containers {
		if c.State == compose.StateRunning {
			s.follow(c.ID)
		}
	}
	return s.rows(containers), nil
}

func (s *uiSource) project() *types.Project {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p
}

// follow keeps up with what a container uses.
func (s *uiSource) follow(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed[id] != nil {
		return
	}
	u := &use{}
	s.followed[id] = u
	s.tasks.Go(func() {
		first := true
		err := s.e.FollowStats(s.ctx, id, func(stats engine.Stats) {
			s.mu.Lock()
			defer s.mu.Unlock()
			u.stats, u.known = stats, !first
			first = false
		})
		if err != nil {
			s.a.logger().Debug("use is not known", "container", id, "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.followed, id)
	})
}

// measure asks once what running containers use.
func (s *uiSource) measure(ctx context.Context, containers []compose.Container) {
	var wg sync.WaitGroup
	for _, c := range containers {
		if c.State != compose.StateRunning {
			continue
		}
		wg.Go(func() {
			stats, err := s.e.Stats(ctx, c.ID)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.followed[c.ID] = &use{stats: stats, known: err == nil}
		})
	}
	wg.Wait()
}

// rows are the project's services in the order of their names, with what their containers are like.
func (s *uiSource) rows(containers []compose.Container) []tui.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []tui.Service
	for _, name := range s.p.ServiceNames() {
		var of []compose.Container
		for _, c := range containers {
			if c.Service() == name {
				of = append(of, c)
			}
		}
		rows = append(rows, s.row(name, of))
	}
	return rows
}

func (s *uiSource) row(name string, containers []compose.Container) tui.Service {
	row := tui.Service{Name: name, State: "none"}
	var cpu float64
	var memory uint64
	var ports []string
	running, known := 0, false
	for _, c := range containers {
		switch c.State {
		case compose.StateRunning:
			running++
		case compose.StateExited:
			row.State = fmt.Sprintf("exited (%d)", c.ExitCode)
		default:
			row.State = string(c.State)
		}
		if row.Health == "" || c.Health != compose.HealthHealthy && c.Health != compose.HealthNone {
			row.Health = string(c.Health)
		}
		if u := s.followed[c.ID]; u != nil && u.known {
			cpu, memory, known = cpu+u.stats.CPU, memory+u.stats.Memory, true
		}
		for _, p := range c.Ports {
			if text := fmt.Sprintf("%d→%d", p.HostPort, p.ContainerPort); p.HostPort != 0 && !slices.Contains(ports, text) {
				ports = append(ports, text)
			}
		}
	}
	switch {
	case running > 0 && running == len(containers):
		row.State = "running"
	case running > 0:
		row.State = fmt.Sprintf("running %d/%d", running, len(containers))
	}
	if known {
		row.CPU, row.Memory = fmt.Sprintf("%.1f%%", cpu), bytesText(int64(memory)) //nolint:gosec // far below the bound
	}
	row.Ports = strings.Join(ports, " ")
	return row
}

// Logs implements tui.Source.
func (s *uiSource) Logs(ctx context.Context, service string, emit func(string)) error {
	project := s.project().Name
	have, err := s.e.Observe(ctx, compose.Query{Project: project, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	shows := func(c compose.Container) bool { return c.Service() == service && !c.OneOff() }
	containers := slices.DeleteFunc(have.Containers, func(c compose.Container) bool { return !shows(c) })
	o := engine.LogsOptions{Tail: "500", Follow: true, Project: project, Accept: shows, Stay: true}
	return s.e.Logs(ctx, containers, o, func(l engine.LogLine) {
		if len(containers) > 1 {
			emit(logName(l.Container) + " | " + l.Text)
			return
		}
		emit(l.Text)
	})
}

// Plan implements tui.Source.
func (s *uiSource) Plan(ctx context.Context, action tui.Action, service string) (tui.Plan, error) {
	p := s.project()
	if action == tui.Up || action == tui.Rebuild {
		var err error
		if p, err = s.a.load(ctx); err != nil {
			return tui.Plan{}, err
		}
		s.mu.Lock()
		s.p = p
		s.mu.Unlock()
	}
	plan, err := s.plan(ctx, p, action, service, false)
	if err != nil {
		return tui.Plan{}, err
	}
	return tui.Plan{Steps: planSteps(plan), Do: func(ctx context.Context) error {
		if len(plan.Provisional) > 0 {
			if err := s.apply(ctx, plan.Images()); err != nil {
				return err
			}
			next, err := s.plan(ctx, p, action, service, true)
			if err != nil {
				return err
			}
			return s.apply(ctx, next)
		}
		return s.apply(ctx, plan)
	}}, nil
}

// planSteps are the lines in which a plan is shown.
func planSteps(plan compose.Plan) []string {
	var b strings.Builder
	things := groupOps(plan.Ops)
	targetWidth, verbWidth := 0, 0
	for _, t := range things {
		targetWidth, verbWidth = max(targetWidth, columns(t.target)), max(verbWidth, columns(t.verb))
	}
	for _, t := range things {
		t.write(&b, func(_, text string) string { return text }, targetWidth, verbWidth)
	}
	for _, name := range plan.Provisional {
		b.WriteString("service " + name + "  recreate if its image changes\n")
	}
	return strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\n' })
}

func (s *uiSource) apply(ctx context.Context, plan compose.Plan) error {
	p := s.project()
	e := &providingEngine{Engine: s.a.keepingLogs(s.e, plan), provide: func(ctx context.Context, op compose.Op) error { return s.a.endProvider(ctx, s.e, p, op) }}
	return compose.Apply(ctx, plan, e, compose.Discard, compose.ApplyOptions{})
}

func (s *uiSource) plan(ctx context.Context, p *types.Project, action tui.Action, service string, imagesReady bool) (compose.Plan, error) {
	have, err := s.e.Observe(ctx, compose.QueryFor(p))
	if err != nil {
		return compose.Plan{}, err
	}
	services := []string{service}
	switch action {
	case tui.Start:
		return compose.NewStartPlan(p.Name, p, have, compose.StartOptions{Services: services})
	case tui.Stop:
		return compose.NewStopPlan(p.Name, p, have, compose.StopOptions{Services: services})
	case tui.Restart:
		return compose.NewRestartPlan(p.Name, p, have, compose.RestartOptions{Services: services, NoDeps: true})
	}
	o := compose.PlanOptions{Environment: s.a.proxies(s.e), ImagesReady: imagesReady, IgnoreOrphans: true}
	o.BuildOptions.Proxy = o.Environment
	if action == tui.Rebuild {
		o.Services, o.NoDeps, o.Build = services, true, !imagesReady
	}
	return compose.NewPlan(p, have, o)
}

// Shell implements tui.Source.
func (s *uiSource) Shell(service string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = "dev"
	}
	args := []string{"-p", s.project().Name}
	if s.a.globals.host != "" {
		args = append(args, "-H", s.a.globals.host)
	}
	c := exec.Command(self, append(args, "exec", service, "sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")...) //nolint:gosec,noctx // ourselves; it ends with its terminal
	c.Dir, c.Env = s.a.cwd, s.a.env
	return c
}
