// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// TestPlans compares plans with those written down in testdata/plan. Each file is one scenario, made of
//
//	before.yaml   what was brought up first, on an empty engine
//	events        what happened since, one per line: see scenario.event
//	compose.yaml  what is planned for; default: before.yaml
//	command       the command and its flags; default: up
//	plan          what is expected
//
// A plan of up is applied, too: a second one must then be empty.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newScenario(t, archive).plan(t)
			for i, f := range archive.Files {
				if f.Name != "plan" || got == string(f.Data) {
					continue
				}
				if !*update {
					t.Errorf("got\n%s\nwant\n%s", got, f.Data)
					continue
				}
				archive.Files[i].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// scenario is one file of testdata/plan.
type scenario struct {
	engine *fakeEngine
	p      *types.Project
	words  []string
}

func newScenario(t *testing.T, archive *txtar.Archive) *scenario {
	parts := map[string]string{"command": "up"}
	for _, f := range archive.Files {
		parts[f.Name] = string(f.Data)
	}
	s := &scenario{engine: newFakeEngine(), words: strings.Fields(parts["command"])}
	want, ok := parts["compose.yaml"]
	if !ok {
		want = parts["before.yaml"]
	}
	s.p = load(t, want)
	s.engine.provide(s.p)
	if before, ok := parts["before.yaml"]; ok {
		p := load(t, before)
		s.engine.provide(p)
		for name, n := range p.Networks {
			if n.External {
				s.engine.networks[n.Name] = Network{ID: "external-" + name, Name: n.Name}
			}
		}
		if err := s.engine.up(p, PlanOptions{}); err != nil {
			t.Fatalf("before.yaml: %v", err)
		}
	}
	for line := range strings.Lines(parts["events"]) {
		if words := strings.Fields(line); len(words) > 0 {
			s.event(t, words)
		}
	}
	return s
}

// load reads a project named app. Its images are those that exist, unless events say otherwise.
func load(t testing.TB, yaml string) *types.Project {
	t.Helper()
	p, err := Load(context.Background(), LoadOptions{
		WorkingDir: "/srv/app", Files: []string{"-"}, Stdin: strings.NewReader(yaml), ProjectName: "app", Environment: map[string]string{"HOME": "/root"},
		AllResources: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// up plans and applies, as the command does.
func (f *fakeEngine) up(p *types.Project, o PlanOptions) error {
	plan, err := f.plan(p, o)
	if err != nil {
		return err
	}
	if len(plan.Provisional) > 0 {
		if err := Apply(context.Background(), plan.Images(), f, Discard, ApplyOptions{Parallel: 1}); err != nil {
			return err
		}
		o.ImagesReady = true
		if plan, err = f.plan(p, o); err != nil {
			return err
		}
	}
	return Apply(context.Background(), plan, f, Discard, ApplyOptions{Parallel: 1})
}

func (f *fakeEngine) plan(p *types.Project, o PlanOptions) (Plan, error) {
	have, err := f.Observe(context.Background(), QueryFor(p))
	if err != nil {
		return Plan{}, err
	}
	return NewPlan(p, have, o)
}

// event makes something happen to the engine.
func (s *scenario) event(t *testing.T, words []string) {
	t.Helper()
	f, args := s.engine, append(words[1:], "", "")
	switch words[0] {
	case "network":
		f.networks[args[0]] = Network{ID: "foreign", Name: args[0], Labels: labelled(args[1:])}
		return
	case "volume":
		f.volumes[args[0]] = Volume{Name: args[0], Labels: labelled(args[1:])}
		return
	case "rmnetwork":
		delete(f.networks, args[0])
		return
	case "newnetwork": // removed and made anew, as a user would
		n := f.networks[args[0]]
		n.ID = "made-anew"
		f.networks[args[0]] = n
		return
	case "image": // pulled, built or loaded anew
		f.images[args[0]] = Image{ID: "sha256:" + f.id(), Platform: args[1], Tagged: f.now}
		return
	case "rmimage":
		delete(f.images, args[0])
		return
	case "age":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			t.Fatal(err)
		}
		f.now = f.now.Add(d)
		return
	case "interrupt": // up is killed after so many operations
		n, err := strconv.Atoi(args[0])
		if err != nil {
			t.Fatal(err)
		}
		plan, err := f.plan(s.p, PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		dying := &dyingEngine{fakeEngine: f}
		dying.left.Store(int32(n))
		if err := Apply(context.Background(), plan, dying, Discard, ApplyOptions{Parallel: 1}); !errors.Is(err, errKilled) {
			t.Fatalf("interrupt: %v", err)
		}
		return
	}
	c := f.byName(args[0])
	if c == nil && words[0] != "copy" {
		t.Fatalf("%v: no such container; there are %v", words, slices.Sorted(maps.Keys(f.named())))
	}
	switch words[0] {
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			t.Fatal(err)
		}
		f.end(c, code)
	case "state":
		c.State = State(args[1])
	case "health":
		c.Health = Health(args[1])
	case "rm":
		delete(f.containers, c.ID)
	case "rename":
		c.Name = args[1]
	case "label":
		c.Labels[args[1]] = strings.Join(words[3:], " ")
	case "unlabel":
		delete(c.Labels, args[1])
	case "detach":
		delete(c.Networks, args[1])
	case "unmount":
		c.Mounts = slices.DeleteFunc(c.Mounts, func(m Mount) bool { return m.Name == args[1] })
	case "double": // a second container like it, under another name
		twin := *c
		twin.ID, twin.Name, twin.Labels = f.id(), args[1], maps.Clone(c.Labels)
		twin.Mounts = nil
		f.containers[twin.ID] = &twin
	default:
		t.Fatalf("unknown event %q", words[0])
	}
}

func labelled(words []string) map[string]string {
	labels := map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			labels[k] = v
		}
	}
	return labels
}

func (f *fakeEngine) named() map[string]bool {
	names := map[string]bool{}
	for _, c := range f.containers {
		names[c.Name] = true
	}
	return names
}

// plan runs the scenario's command, gives its plan or error, and checks that up converges.
func (s *scenario) plan(t *testing.T) string {
	have, err := s.engine.Observe(context.Background(), QueryFor(s.p))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := s.run(t, have)
	if err != nil {
		text := "error: " + err.Error() + "\n"
		var hinter interface{ Hint() string }
		if errors.As(err, &hinter) {
			text += "hint: " + hinter.Hint() + "\n"
		}
		return text
	}
	checkPlan(t, plan)
	if s.words[0] == "up" {
		s.converge(t, plan)
	} else if err := Apply(context.Background(), plan, s.engine, Discard, ApplyOptions{Parallel: 1}); err != nil {
		t.Errorf("apply: %v", err)
	}
	return plan.String()
}

func (s *scenario) run(t *testing.T, have Snapshot) (Plan, error) {
	o, p := s.flags(t), s.p
	if slices.Contains(s.words, "--no-files") {
		p = nil
	}
	switch s.words[0] {
	case "up":
		return NewPlan(s.p, have, o)
	case "down":
		return NewDownPlan("app", p, have, DownOptions{
			Services: o.Services, RemoveOrphans: o.RemoveOrphans, Volumes: o.RenewAnonVolumes, Images: o.Pull, Timeout: o.Timeout,
		})
	case "stop":
		return NewStopPlan("app", p, have, StopOptions{Services: o.Services, Timeout: o.Timeout})
	case "start":
		return NewStartPlan("app", p, have, StartOptions{Services: o.Services, Wait: o.Wait})
	case "restart":
		return NewRestartPlan("app", p, have, RestartOptions{Services: o.Services, NoDeps: o.NoDeps, Timeout: o.Timeout})
	case "kill":
		return NewKillPlan("app", p, have, KillOptions{Services: o.Services, RemoveOrphans: o.RemoveOrphans})
	case "rm":
		return NewRemovePlan("app", p, have, RemoveOptions{Services: o.Services, Stop: o.NoStart, Volumes: o.RenewAnonVolumes})
	case "pause":
		return NewPausePlan("app", p, have, PauseOptions{Services: o.Services})
	case "unpause":
		return NewUnpausePlan("app", p, have, PauseOptions{Services: o.Services})
	case "pull":
		return NewPullPlan(s.p, have, PullOptions{Services: o.Services, IncludeDeps: !o.NoDeps, Policy: o.Pull})
	case "build":
		return NewBuildPlan(s.p, have, BuildPlanOptions{Services: o.Services})
	case "restore":
		contents := map[string]string{}
		for _, key := range o.Services {
			contents[key] = "saved-" + key
		}
		return NewRestorePlan(s.p, have, contents)
	case "run":
		return NewRunPlan(s.p, have, RunOptions{
			Service: o.Services[0], OneOff: OneOff{Slug: "0123456789ab", Detach: o.NoStart, Command: []string{"true"}}, NoDeps: o.NoDeps, Build: o.Build,
		})
	}
	t.Fatalf("unknown command %q", s.words[0])
	return Plan{}, nil
}

// flags reads the command's flags. Some stand for another command's flag of the same spelling.
func (s *scenario) flags(t *testing.T) PlanOptions {
	var o PlanOptions
	set := flag.NewFlagSet("", flag.PanicOnError)
	for name, target := range map[string]*bool{
		"no-deps": &o.NoDeps, "force-recreate": &o.ForceRecreate, "always-recreate-deps": &o.AlwaysRecreateDeps, "no-recreate": &o.NoRecreate,
		"V": &o.RenewAnonVolumes, "v": &o.RenewAnonVolumes, "remove-orphans": &o.RemoveOrphans, "ignore-orphans": &o.IgnoreOrphans,
		"no-start": &o.NoStart, "d": &o.NoStart, "s": &o.NoStart, "wait": &o.Wait, "build": &o.Build, "no-build": &o.NoBuild,
		"images-ready": &o.ImagesReady, "no-files": new(bool),
	} {
		set.BoolVar(target, name, false, "")
	}
	set.StringVar(&o.Pull, "pull", "", "")
	set.StringVar(&o.Pull, "rmi", "", "")
	set.StringVar(&o.Pull, "policy", "", "")
	set.Func("recreate-volume", "", func(v string) error { o.RecreateVolumes = append(o.RecreateVolumes, v); return nil })
	set.Func("t", "", func(v string) error { d, err := time.ParseDuration(v); o.Timeout = &d; return err })
	set.Func("scale", "", func(v string) error {
		name, n, _ := strings.Cut(v, "=")
		count, err := strconv.Atoi(n)
		o.Scale = map[string]int{name: count}
		return err
	})
	if err := set.Parse(s.words[1:]); err != nil {
		t.Fatal(err)
	}
	o.Services = set.Args()
	return o
}

// converge applies a plan of up and checks that nothing is left to do.
func (s *scenario) converge(t *testing.T, plan Plan) {
	t.Helper()
	o := s.flags(t)
	if len(plan.Provisional) == 0 {
		if err := Apply(context.Background(), plan, s.engine, Discard, ApplyOptions{Parallel: 1}); err != nil {
			t.Errorf("apply: %v", err)
		}
	} else if err := s.engine.up(s.p, o); err != nil {
		t.Errorf("apply: %v", err)
	}
	if len(o.RecreateVolumes) == 0 && len(s.engine.lost) > 0 {
		t.Errorf("volumes were lost: %v", s.engine.lost)
	}
	o.ForceRecreate, o.AlwaysRecreateDeps, o.RenewAnonVolumes, o.Pull, o.Build = false, false, false, "", false
	again, err := s.engine.plan(s.p, o)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Images().Empty() && len(again.Ops) == len(again.Images().Ops) {
		return // pull_policy wants that each time
	}
	if !again.Empty() {
		t.Errorf("there is still something to do:\n%s\nafter\n%s", again, strings.Join(s.engine.log, "\n"))
	}
}

// checkPlan checks what holds for every plan.
func checkPlan(t interface{ Errorf(string, ...any) }, plan Plan) {
	for i, op := range plan.Ops {
		if op.ID != i+1 {
			t.Errorf("operation %d has ID %d", i+1, op.ID)
		}
		for _, id := range before(op) {
			if id < 1 || id >= op.ID {
				t.Errorf("#%d %s comes after #%d", op.ID, op, id)
			}
		}
		if op.Ref.Op != 0 && !slices.Contains(op.Needs, op.Ref.Op) {
			t.Errorf("#%d %s does not need #%d, which it acts on", op.ID, op, op.Ref.Op)
		}
		if op.Target == "" || op.Kind == "" {
			t.Errorf("#%d has no kind or target: %s", op.ID, fmt.Sprint(op))
		}
	}
}
