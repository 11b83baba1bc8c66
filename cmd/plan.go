// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

type planOptions struct {
	createOptions
	json, exitCode bool
}

func newPlanCommand(a *app) *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use:     "plan [OPTIONS] [SERVICE...]",
		Short:   "Show what up would do, and why, without doing it",
		GroupID: groupLook,
		Long: `Compares the Compose files with what the engine has and shows what dev up would do
about it. A container that would be recreated names the fields that changed, with
their old and new values; those that may hold a secret are masked.

The flags are those of dev up. Other commands show their plan with --dry-run.`,
		Example: `  dev plan
  dev plan --exit-code --json    for scripts: exit status 2 when there is something to do`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return a.runPlan(c.Context(), o, args)
		},
	}
	f := c.Flags()
	o.register(f)
	o.registerMore(f)
	f.BoolVar(&o.json, "json", false, "show the plan as JSON")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 2 when there is something to do")
	return c
}

func (a *app) runPlan(ctx context.Context, o planOptions, services []string) error {
	p, err := a.load(ctx, services...)
	if err != nil {
		return err
	}
	po, err := o.plan(a, p, services)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	if p, err = a.complete(ctx, p, e, externals{services: services, noDeps: o.noDeps, look: true}); err != nil {
		return err
	}
	po.Environment = a.proxies(e)
	have, err := e.Observe(ctx, compose.QueryFor(p))
	if err != nil {
		return err
	}
	plan, err := compose.NewPlan(p, have, po)
	if err != nil {
		return err
	}
	if o.json {
		err = writeJSON(a.out, jsonOfPlan(plan))
	} else {
		a.warnAll(plan.Warnings)
		err = a.showPlan(plan)
	}
	if err == nil && o.exitCode && (!plan.Empty() || len(plan.Provisional) > 0) {
		return exitStatus(exitChanges)
	}
	return err
}

// showPlan shows a plan on stdout: one line for each thing with all that happens to it, the reason, and the changed fields under it.
func (a *app) showPlan(plan compose.Plan) error {
	paint := a.painter(a.out, false)
	if plan.Empty() && len(plan.Provisional) == 0 {
		_, err := fmt.Fprintln(a.out, "no changes")
		return err
	}
	var b strings.Builder
	things := groupOps(plan.Ops)
	targetWidth, verbWidth := 0, 0
	for _, t := range things {
		targetWidth = max(targetWidth, columns(t.target))
		verbWidth = max(verbWidth, columns(t.verb))
	}
	for _, t := range things {
		t.write(&b, paint, targetWidth, verbWidth)
	}
	for _, name := range plan.Provisional {
		fmt.Fprintf(&b, "service %s is recreated if pulling or building gives it another image\n", name)
	}
	for _, key := range plan.DivergedVolumes {
		fmt.Fprintf(&b, "volume %s was made with another configuration and stays as it is; dev up asks whether to make it anew, which loses its data\n", key)
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

// thing is all that a plan does to one thing.
type thing struct {
	target, verb, reason string
	changes              []compose.Change
	destructive          bool
	kinds                []compose.OpKind
}

// groupOps puts the operations on the same thing together, in the plan's order.
func groupOps(ops []compose.Op) []*thing {
	var things []*thing
	byTarget := map[string]*thing{}
	for _, op := range ops {
		t := byTarget[op.Target]
		if t == nil {
			t = &thing{target: op.Target}
			byTarget[op.Target] = t
			things = append(things, t)
		}
		t.kinds = append(t.kinds, op.Kind)
		t.destructive = t.destructive || op.Destructive
		if t.reason == "" {
			t.reason = op.Reason
		}
		if len(op.Changes) > 0 {
			t.reason, t.changes = op.Reason, op.Changes
		}
	}
	for _, t := range things {
		t.verb = verbOf(t.kinds)
	}
	return things
}

// verbOf says in words what several operations come to.
func verbOf(kinds []compose.OpKind) string {
	has := func(k compose.OpKind) bool { return slices.Contains(kinds, k) }
	var verbs []string
	switch {
	case has(compose.OpFillVolume):
		verbs = append(verbs, "restore")
	case has(compose.OpCreateContainer) && has(compose.OpRemoveContainer), has(compose.OpCreateNetwork) && has(compose.OpRemoveNetwork),
		has(compose.OpCreateVolume) && has(compose.OpRemoveVolume):
		verbs = append(verbs, "recreate")
	case has(compose.OpPullImage) && has(compose.OpBuildImage):
		verbs = append(verbs, "pull or build")
	default:
		for _, k := range kinds {
			verb, object, _ := strings.Cut(string(k), " ")
			secondary := k == compose.OpCopyFiles || k == compose.OpRunHook || k == compose.OpStartContainer || k == compose.OpAwait ||
				k == compose.OpStopContainer && has(compose.OpRemoveContainer)
			if object != "" && !secondary && !slices.Contains(verbs, verb) {
				verbs = append(verbs, verb)
			}
		}
	}
	if has(compose.OpStartContainer) {
		verbs = append(verbs, "start")
	}
	if has(compose.OpAwait) {
		verbs = append(verbs, "wait")
	}
	if len(verbs) == 0 {
		return string(kinds[0])
	}
	return strings.Join(verbs, ", ")
}

func (t *thing) write(b *strings.Builder, paint paint, targetWidth, verbWidth int) {
	style := green
	switch {
	case t.destructive:
		style = red
	case strings.HasPrefix(t.verb, "recreate"), strings.HasPrefix(t.verb, "remove"), strings.HasPrefix(t.verb, "stop"):
		style = yellow
	}
	line := pad(t.target, targetWidth) + "  " + paint(style, pad(t.verb, verbWidth))
	if t.reason != "" {
		line += "  " + t.reason
	}
	if t.destructive {
		line += paint(red, "  (its data is lost)")
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	for _, c := range t.changes {
		b.WriteString("    " + c.String() + "\n")
	}
}

// jsonPlan is a plan for scripts; docs/cli.md describes it.
type jsonPlan struct {
	Operations  []jsonOp `json:"operations"`
	Provisional []string `json:"provisional,omitempty"`
	Volumes     []string `json:"diverged_volumes,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
}

type jsonOp struct {
	ID          int          `json:"id"`
	Kind        string       `json:"kind"`
	Target      string       `json:"target"`
	Service     string       `json:"service,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Changes     []jsonChange `json:"changes,omitempty"`
	Needs       []int        `json:"needs,omitempty"`
	After       []int        `json:"after,omitempty"`
	Fallback    int          `json:"fallback,omitempty"`
	Destructive bool         `json:"destructive,omitempty"`
	BestEffort  bool         `json:"best_effort,omitempty"`
	Condition   string       `json:"condition,omitempty"`
}

type jsonChange struct {
	Field string  `json:"field"`
	Old   *string `json:"old"`
	New   *string `json:"new"`
}

func jsonOfPlan(plan compose.Plan) jsonPlan {
	out := jsonPlan{Operations: []jsonOp{}, Provisional: plan.Provisional, Volumes: plan.DivergedVolumes}
	for _, op := range plan.Ops {
		out.Operations = append(out.Operations, jsonOfOp(op))
	}
	for _, w := range plan.Warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	return out
}

func jsonOfOp(op compose.Op) jsonOp {
	j := jsonOp{
		ID: op.ID, Kind: string(op.Kind), Target: op.Target, Service: op.Service, Reason: op.Reason, Needs: op.Needs, After: op.After,
		Fallback: op.Fallback, Destructive: op.Destructive, BestEffort: op.BestEffort, Condition: string(op.Condition),
	}
	for _, c := range op.Changes {
		change := jsonChange{Field: c.Field}
		if c.OldSet {
			change.Old = &c.Old
		}
		if c.NewSet {
			change.New = &c.New
		}
		j.Changes = append(j.Changes, change)
	}
	return j
}
