// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/loghistory"
)

// logHistory is where the output of earlier containers is kept.
func (a *app) logHistory() (loghistory.Store, error) {
	dir, err := a.userDir()
	return loghistory.Store{Dir: filepath.Join(dir, loghistory.DirName)}, err
}

// keepTimeout bounds keeping one container's output: a replacement does not wait for it longer.
const keepTimeout = 10 * time.Second

// logReader is an engine that gives containers' output.
type logReader interface {
	compose.Engine
	Logs(ctx context.Context, containers []compose.Container, o engine.LogsOptions, f func(engine.LogLine)) error
	Container(ctx context.Context, id string) (compose.Container, error)
}

// keepingLogs returns an engine that keeps the output of containers which the plan replaces. Where that is switched off, or nothing is replaced, it is e
// itself.
func (a *app) keepingLogs(e compose.Engine, plan compose.Plan) compose.Engine {
	reader, ok := e.(logReader)
	replaced := replacedContainers(plan)
	if !ok || len(replaced) == 0 {
		return e
	}
	dir, err := a.userDir()
	if err != nil {
		return e
	}
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil || c.Logs.History != nil && !*c.Logs.History {
		return e
	}
	return &keepingEngine{logReader: reader, a: a, store: loghistory.Store{Dir: filepath.Join(dir, loghistory.DirName)}, replaced: replaced}
}

// replacedContainers are the IDs of containers in whose place the plan makes others.
func replacedContainers(plan compose.Plan) map[string]bool {
	made, replaced := map[string]bool{}, map[string]bool{}
	for _, op := range plan.Ops {
		if op.Kind == compose.OpCreateContainer {
			made[op.Target] = true
		}
	}
	for _, op := range plan.Ops {
		if op.Kind == compose.OpRemoveContainer && made[op.Target] && op.Ref.ID != "" {
			replaced[op.Ref.ID] = true
		}
	}
	return replaced
}

// keepingEngine keeps the output of containers before it removes them.
type keepingEngine struct {
	logReader
	a        *app
	store    loghistory.Store
	replaced map[string]bool // by ID
}

// Do implements compose.Engine. Output that cannot be kept is no reason not to go on.
func (k *keepingEngine) Do(ctx context.Context, op compose.Op, made compose.Results, sink compose.Sink) (compose.Result, error) {
	if op.Kind == compose.OpRemoveContainer && k.replaced[op.Ref.ID] {
		if err := k.keep(ctx, op); err != nil {
			k.a.logger().Debug("output not kept", "container", op.Target, "error", err)
		}
	}
	return k.logReader.Do(ctx, op, made, sink)
}

func (k *keepingEngine) keep(ctx context.Context, op compose.Op) error {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	c, err := k.Container(ctx, op.Ref.ID)
	if err != nil {
		return err
	}
	g := loghistory.Generation{Project: c.Labels[compose.LabelProject], Service: c.Service(), Container: c.Name, ID: c.ID, Created: c.Created}
	return k.store.Save(g, func(emit func(loghistory.Line)) error {
		o := engine.LogsOptions{Tail: strconv.Itoa(loghistory.Lines)}
		return k.Logs(ctx, []compose.Container{c}, o, func(l engine.LogLine) {
			emit(loghistory.Line{Time: l.Time, Stderr: l.Stderr, Text: l.Text})
		})
	})
}

// namedLine is a line of an earlier container, under its name and generation: "web-1~2".
type namedLine struct {
	name string
	loghistory.Line
}

// history reads the output of earlier containers, in the order of time.
func (a *app) history(project string, o logsOptions, shows func(compose.Container) bool, printer *logPrinter) ([]namedLine, error) {
	store, err := a.logHistory()
	if err != nil {
		return nil, err
	}
	all, err := store.List(project)
	if err != nil {
		return nil, err
	}
	var lines []namedLine
	for _, g := range all {
		c := compose.Container{Name: g.Container, Labels: map[string]string{
			compose.LabelProject: project, compose.LabelService: g.Service, compose.LabelContainerNumber: numberOf(g.Container),
		}}
		if !shows(c) {
			continue
		}
		name := fmt.Sprintf("%s~%d", logName(c), g.Number)
		var of []namedLine
		err := g.Read(func(l loghistory.Line) {
			if o.within(l.Time) {
				of = append(of, namedLine{name, l})
			}
		})
		if err != nil {
			a.warn(err.Error())
		}
		if n, err := strconv.Atoi(o.tail); err == nil {
			of = of[max(0, len(of)-n):]
		}
		if len(of) > 0 {
			printer.register(name)
		}
		lines = append(lines, of...)
	}
	slices.SortStableFunc(lines, func(x, y namedLine) int { return x.Time.Compare(y.Time) })
	return lines, nil
}

// withHistory puts earlier lines in among those that show gets, where these are in the order of time. The rest of them comes with the last call, of done.
func withHistory(lines []namedLine, printer *logPrinter, show func(engine.LogLine)) (merged func(engine.LogLine), done func()) {
	until := func(before func(time.Time) bool) {
		for len(lines) > 0 && before(lines[0].Time) {
			l := lines[0]
			lines = lines[1:]
			printer.line(l.name, l.Stderr, l.Time, l.Text)
		}
	}
	merged = func(l engine.LogLine) {
		until(l.Time.After)
		show(l)
	}
	return merged, func() { until(func(time.Time) bool { return true }) }
}

// numberOf is the number at the end of a container's name.
func numberOf(name string) string {
	i := len(name)
	for i > 0 && name[i-1] >= '0' && name[i-1] <= '9' {
		i--
	}
	return name[i:]
}

// within reports whether --since and --until let a time through. What the engine would understand and this does not, it lets through.
func (o logsOptions) within(t time.Time) bool {
	since, hasSince := moment(o.since, time.Now())
	until, hasUntil := moment(o.until, time.Now())
	return !(hasSince && t.Before(since)) && !(hasUntil && t.After(until))
}

// moment reads a time as --since takes it: a duration before now, RFC 3339, or seconds since 1970.
func moment(text string, now time.Time) (time.Time, bool) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), true
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, true
		}
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Unix(0, int64(s*float64(time.Second))), true
	}
	return time.Time{}, false
}
