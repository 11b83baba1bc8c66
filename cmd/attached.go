// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// session is an attached `up`: it applies the plan while it shows the containers' output, and lasts until those that it watches have ended, one
// of them ends it (--abort-on-container-exit), or the user does.
type session struct {
	*upRun
	shown, watched map[string]bool // services
	printer        *logPrinter
	// exits tells of containers that ended for good, once all their output is shown.
	exits chan exit

	// watching follows source files for --watch and the menu's key; nil: there is nothing to follow.
	watching *watching
	left     bool // the user detached

	mu sync.Mutex
	// ended are the containers that ended since the last look at the engine.
	ended map[string]bool
}

// exit is the end of a container.
type exit struct {
	compose.Container
	code int
}

// attached applies the plan with the containers' output on stdout.
func (u *upRun) attached(ctx context.Context, plan compose.Plan) error {
	s := &session{
		upRun: u, shown: u.shownServices(), exits: make(chan exit), ended: map[string]bool{},
		printer: u.a.newLogPrinter(u.o.noColor, u.o.noPrefix, u.o.timestamps),
	}
	if err := s.prepareWatch(); err != nil {
		return err
	}
	s.watched = s.shown
	if len(u.services) > 0 {
		s.watched = setOf(u.services)
	}
	return s.run(ctx, plan)
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// shownServices are those whose output is shown: --attach, else the ones that were asked for, less those that opt out.
func (u *upRun) shownServices() map[string]bool {
	shown := setOf(u.o.attach)
	if len(u.o.attach) == 0 {
		deps := types.IgnoreDependencies
		if u.o.attachDependencies {
			deps = types.IncludeDependencies
		}
		_ = u.whole.ForEachService(u.services, func(name string, s *types.ServiceConfig) error {
			if s.Provider == nil && (s.Attach == nil || *s.Attach) {
				shown[name] = true
			}
			return nil
		}, deps)
	}
	for _, name := range u.o.noAttach {
		delete(shown, name)
	}
	return shown
}

// run brings the plan and the containers' output together.
func (s *session) run(ctx context.Context, plan compose.Plan) error {
	kept := s.keptContainers(plan)
	s.announce(kept, plan)
	logs, stopLogs := context.WithCancel(context.WithoutCancel(ctx))
	var following sync.WaitGroup
	following.Go(func() { s.follow(logs, kept) })
	defer following.Wait()
	defer stopLogs()

	p := s.a.startProgress("up", false)
	s.printer.setAround(p.above)
	applying, abort := context.WithCancel(ctx)
	defer abort()
	applied := make(chan error, 1)
	failures := &failures{}
	go func() {
		o := s.applyOptions("up")
		o.settled, o.also = settled(s.p, s.have, plan), failures
		err := s.a.applyWith(applying, s.e, plan, p, o)
		s.printer.setAround(nil)
		p.close()
		applied <- err
	}()
	end, err := s.untilApplied(applied, abort)
	switch {
	case err != nil && ctx.Err() == nil && end == nil:
		return s.undo(ctx, s.a.explainFailure(ctx, s.e, s.p, failures, err))
	case ctx.Err() != nil || end != nil:
	default:
		end, err = s.untilEnd(ctx)
	}
	if s.left || err != nil && ctx.Err() == nil && end == nil {
		return err
	}
	return s.finish(ctx, end, err)
}

// keptContainers are the running containers that the plan leaves as they are.
func (s *session) keptContainers(plan compose.Plan) []compose.Container {
	touched := map[string]bool{}
	for _, op := range plan.Ops {
		touched[op.Target] = true
	}
	var kept []compose.Container
	for _, c := range s.have.Containers {
		ran := s.staged && !c.Created.Before(s.begin.Now) // and has ended since
		if s.accepts(c) && (up(c.State) || ran) && !touched["container "+c.Name] {
			kept = append(kept, c)
		}
	}
	return kept
}

func (s *session) accepts(c compose.Container) bool {
	return !c.OneOff() && (s.shown[c.Service()] || s.watched[c.Service()])
}

// announce names the containers whose output comes, so that their names line up from the first line on.
func (s *session) announce(kept []compose.Container, plan compose.Plan) {
	var names []string
	add := func(service, name string) {
		if s.shown[service] && !slices.Contains(names, name) {
			names = append(names, name)
			s.printer.register(name)
		}
	}
	for _, c := range kept {
		add(c.Service(), logName(c))
	}
	for _, op := range plan.Ops {
		if op.Kind == compose.OpStartContainer {
			add(op.Service, shortName(s.p.Name, op.Service, strings.TrimPrefix(op.Target, "container ")))
		}
	}
	if len(names) > 0 {
		fmt.Fprintln(s.a.out, "Attaching to "+strings.Join(names, ", "))
	}
}

// follow shows output and tells of ends until ctx is done.
func (s *session) follow(ctx context.Context, kept []compose.Container) {
	since, tail := "", "0"
	if s.staged { // what providers depend on has been started already
		since, tail = s.begin.Now.Format(time.RFC3339), "all"
	}
	err := s.e.Logs(ctx, kept, engine.LogsOptions{
		Follow: true, Stay: true, Since: since, Tail: tail, Project: s.p.Name, Accept: s.accepts,
		Ended: func(c compose.Container, end engine.End) {
			if s.shown[c.Service()] {
				s.printer.ended(c, end)
			}
			if end.Restarting {
				return
			}
			s.mu.Lock()
			s.ended[c.ID] = true
			s.mu.Unlock()
			select {
			case s.exits <- exit{c, end.Code}:
			case <-ctx.Done():
			}
		},
	}, func(l engine.LogLine) {
		if s.shown[l.Container.Service()] {
			s.printer.logLine(l)
		}
	})
	if err != nil && ctx.Err() == nil {
		s.a.warn("the containers' output can no longer be shown: " + err.Error())
	}
}

// untilApplied waits for the plan. A container whose end ends the session aborts it.
func (s *session) untilApplied(applied <-chan error, abort func()) (end *exit, err error) {
	for {
		select {
		case err := <-applied:
			return end, err
		case e := <-s.exits:
			if end == nil && s.aborts(e) {
				end = &e
				abort()
			}
		}
	}
}

// aborts reports whether the end of a container ends the session.
func (s *session) aborts(e exit) bool {
	return s.watched[e.Service()] && (s.o.abortOnExit || s.o.abortOnFailure && e.code != 0)
}

// untilEnd waits until the user, a container or the end of all watched containers ends the session. While source files are followed it does not end
// by itself: what has ended may be started again by the next change.
func (s *session) untilEnd(ctx context.Context) (end *exit, err error) {
	running, err := s.running(ctx)
	if err != nil {
		return nil, err
	}
	side := s.startSide(ctx)
	defer side.close()
	for len(running) > 0 || side.follows() {
		select {
		case <-ctx.Done():
			return nil, nil
		case e := <-s.exits:
			delete(running, e.ID)
			if s.aborts(e) {
				return &e, nil
			}
		case k := <-side.keys:
			if s.left = side.press(ctx, k); s.left {
				return nil, nil
			}
		case <-side.ended:
			if running, err = s.running(ctx); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// running are the watched containers that run, less those known to have ended while the engine was asked.
func (s *session) running(ctx context.Context) (map[string]bool, error) {
	s.mu.Lock()
	s.ended = map[string]bool{}
	s.mu.Unlock()
	have, err := s.observe(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	running := map[string]bool{}
	for _, c := range have.Containers {
		if !c.OneOff() && s.watched[c.Service()] && up(c.State) && !s.ended[c.ID] {
			running[c.ID] = true
		}
	}
	return running, nil
}

// finish stops what has to be stopped and gives the exit code.
func (s *session) finish(ctx context.Context, end *exit, err error) error {
	code := 0
	switch {
	case ctx.Err() != nil:
		s.a.say("Gracefully Stopping... press Ctrl+C again to force")
	case end != nil:
		s.a.say(fmt.Sprintf("Aborting on container exit... (%s)", logName(end.Container)))
		code = end.code
	}
	if ctx.Err() != nil || end != nil {
		stopped := s.stop(ctx)
		if stopped != nil {
			return stopped
		}
	}
	if from := s.o.exitCodeFrom; from != "" {
		if c, ok := s.exitCodeOf(context.WithoutCancel(ctx), from); ok {
			code = c
		}
	}
	if err != nil && end == nil && !onlyCanceled(err) {
		return err
	}
	return exitWith(code)
}

// onlyCanceled reports whether all that went wrong is that the user ended it: the application was still starting when Ctrl-C came. What was
// started has been stopped, so that the end is the same as a moment later.
func onlyCanceled(err error) bool {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return !slices.ContainsFunc(many.Unwrap(), func(e error) bool { return !onlyCanceled(e) })
	}
	return errors.Is(err, context.Canceled)
}

// stop stops the containers of the session, and kills them when the user asks a second time.
func (s *session) stop(ctx context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var killing sync.WaitGroup
	defer killing.Wait()
	defer s.a.interrupts.onSecond(func() {
		killing.Go(func() {
			if err := s.kill(ctx); err != nil {
				s.a.warn(err.Error())
			}
		})
	})()
	have, err := s.observe(ctx)
	if err != nil {
		return err
	}
	plan, err := compose.NewStopPlan(s.p.Name, s.p, have, compose.StopOptions{Services: s.services, Timeout: s.o.timeout.value})
	if err != nil {
		return err
	}
	speaking := map[string]bool{}
	for _, op := range plan.Ops {
		speaking[op.Ref.ID] = slices.ContainsFunc(have.Containers, func(c compose.Container) bool { return c.ID == op.Ref.ID && s.accepts(c) })
	}
	maps.DeleteFunc(speaking, func(_ string, accepted bool) bool { return !accepted })
	p := s.a.startProgress("stop", false)
	defer p.close()
	s.printer.setAround(p.above)
	defer s.printer.setAround(nil)
	stopped := make(chan error, 1)
	go func() { stopped <- s.a.applyWith(ctx, s.e, plan, p, applyOptions{}) }()
	return s.drain(stopped, speaking)
}

// lastOutput bounds the wait for what containers wrote before they ended; an engine tells of it within milliseconds.
const lastOutput = 3 * time.Second

// drain waits until the plan is done and the last output of the containers that it stops is shown.
func (s *session) drain(stopped <-chan error, speaking map[string]bool) (err error) {
	var deadline <-chan time.Time
	for stopped != nil || len(speaking) > 0 {
		select {
		case err = <-stopped:
			stopped = nil
			timer := time.NewTimer(lastOutput)
			defer timer.Stop()
			deadline = timer.C
		case e := <-s.exits:
			delete(speaking, e.ID)
		case <-deadline:
			return err
		}
	}
	return err
}

func (s *session) observe(ctx context.Context) (compose.Snapshot, error) {
	return s.e.Observe(ctx, compose.Query{Project: s.p.Name, SkipNetworks: true, SkipVolumes: true})
}

// kill ends the session's containers at once.
func (s *session) kill(ctx context.Context) error {
	have, err := s.observe(ctx)
	if err != nil {
		return err
	}
	plan, err := compose.NewKillPlan(s.p.Name, s.p, have, compose.KillOptions{Services: s.services})
	if err != nil {
		return err
	}
	err = compose.Apply(ctx, plan, s.e, compose.Discard, compose.ApplyOptions{})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// exitCodeOf is the exit code of the first container of a service that has ended.
func (s *session) exitCodeOf(ctx context.Context, service string) (code int, ok bool) {
	have, err := s.observe(ctx)
	if err != nil {
		return 0, false
	}
	for _, c := range have.Containers {
		if c.Service() == service && !c.OneOff() && c.State == compose.StateExited {
			return c.ExitCode, true
		}
	}
	return 0, false
}
