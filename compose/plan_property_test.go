// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"pgregory.net/rapid"
)

// drawService writes one service of a generated project. It depends on earlier ones only, and shares a network with one of hosts.
func drawService(t *rapid.T, i int, earlier, hosts []string) string {
	name := string(rune('a' + i))
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name+" "+label) }
	chance := func(label string) bool { return rapid.IntRange(0, 3).Draw(t, name+" "+label) == 0 }

	kind := pick("kind", "plain", "plain", "healthy", "job")
	var b strings.Builder
	fmt.Fprintf(&b, "  %s:\n    image: %s\n", name, map[string]string{"plain": "nginx", "healthy": "db", "job": "job"}[kind])
	if kind == "healthy" {
		b.WriteString("    healthcheck: {test: [CMD, \"true\"]}\n")
	}
	fmt.Fprintf(&b, "    user: u%s\n", pick("user", "1", "2"))
	scale := rapid.SampledFrom([]int{1, 1, 2, 3, 0}).Draw(t, name+" scale")
	shares := ""
	if len(hosts) > 0 && chance("shares") {
		shares = pick("shared", hosts...)
		fmt.Fprintf(&b, "    network_mode: service:%s\n", shares)
	} else {
		fmt.Fprintf(&b, "    networks: [%s]\n", pick("networks", "default", "n1", "n1, n2"))
		switch pick("ports", "none", "fixed", "range") {
		case "fixed":
			scale = min(scale, 1)
			fmt.Fprintf(&b, "    ports: [\"%d:80\"]\n", 8000+rapid.IntRange(i*2, i*2+1).Draw(t, name+" port"))
		case "range":
			b.WriteString("    ports: [\"9000-9100:80\"]\n")
		}
	}
	if chance("container_name") {
		scale = min(scale, 1)
		fmt.Fprintf(&b, "    container_name: the-%s\n", name)
	}
	fmt.Fprintf(&b, "    scale: %d\n", scale)
	var volumes []string
	for _, v := range []string{"v1:/v1", "v2:/v2", "/anonymous"} {
		if chance(v) {
			volumes = append(volumes, v)
		}
	}
	fmt.Fprintf(&b, "    volumes: [%s]\n", strings.Join(volumes, ", "))
	var deps []string
	for _, e := range earlier {
		if e != shares && chance("depends on "+e) {
			deps = append(deps, fmt.Sprintf("%s: {condition: %s, restart: %t}", e, "CONDITION_"+e, chance("restart "+e)))
		}
	}
	fmt.Fprintf(&b, "    depends_on: {%s}\n", strings.Join(deps, ", "))
	if chance("config") {
		b.WriteString("    configs: [c]\n")
	}
	return b.String()
}

// drawProject writes a project of up to six services.
func drawProject(t *rapid.T, label string) string {
	n := rapid.IntRange(1, 6).Draw(t, label+" services")
	services := "services:\n"
	var names, hosts, conditions, jobs []string
	for i := range n {
		s := drawService(t, i, names, hosts)
		name := string(rune('a' + i))
		condition := types.ServiceConditionStarted
		if strings.Contains(s, "healthcheck") {
			condition = types.ServiceConditionHealthy
		} else if strings.Contains(s, "image: job") {
			condition = types.ServiceConditionCompletedSuccessfully
			jobs = append(jobs, fmt.Sprintf("%s: {condition: %s}", name, condition))
		}
		conditions = append(conditions, "CONDITION_"+name, condition)
		services += s
		names = append(names, name)
		if !strings.Contains(s, "scale: 0") && !strings.Contains(s, "image: job") && !strings.Contains(s, "network_mode") {
			hosts = append(hosts, name)
		}
	}
	if len(jobs) > 0 { // a job that nothing waits for is run at each up
		services += fmt.Sprintf("  z:\n    image: nginx\n    depends_on: {%s}\n", strings.Join(jobs, ", "))
	}
	internal := rapid.Bool().Draw(t, label+" internal")
	content := rapid.SampledFrom([]string{"one", "two"}).Draw(t, label+" content")
	return strings.NewReplacer(conditions...).Replace(services) +
		fmt.Sprintf("networks: {default: {}, n1: {internal: %t}, n2: {}}\nvolumes: {v1: {}, v2: {}}\nconfigs: {c: {content: %s}}\n", internal, content)
}

func mustUp(t *rapid.T, f *fakeEngine, yaml string) *types.Project {
	p := loadIn(t, yaml)
	f.provide(p)
	apply(t, f, p, rapid.SampledFrom([]int{1, 3, 8}).Draw(t, "parallel"))
	return p
}

func apply(t *rapid.T, f *fakeEngine, p *types.Project, parallel int) {
	plan, err := f.plan(p, PlanOptions{RemoveOrphans: true})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	checkPlan(t, plan)
	if err := Apply(context.Background(), plan, f, Discard, ApplyOptions{Parallel: parallel}); err != nil {
		t.Fatalf("apply: %v\n%s", err, plan)
	}
}

func loadIn(t *rapid.T, yaml string) *types.Project {
	p, err := Load(context.Background(), LoadOptions{
		WorkingDir: "/srv/app", Files: []string{"-"}, Stdin: strings.NewReader(yaml), ProjectName: "app", Environment: map[string]string{"HOME": "/root"},
		AllResources: true,
	})
	if err != nil {
		t.Fatalf("load: %v\n%s", err, yaml)
	}
	return p
}

func mustBeDone(t *rapid.T, f *fakeEngine, p *types.Project) {
	plan, err := f.plan(p, PlanOptions{RemoveOrphans: true})
	if err != nil {
		t.Fatalf("plan again: %v", err)
	}
	if !plan.Empty() {
		t.Fatalf("still to do:\n%s\nhaving done\n%s", plan, strings.Join(f.log, "\n"))
	}
	if f.raced.Load() {
		t.Fatalf("starts that publish ranges overlapped")
	}
	if len(f.lost) > 0 {
		t.Fatalf("volumes were lost: %v", f.lost)
	}
}

// TestUpConverges ups generated projects one over the other; each time nothing is left to do.
func TestUpConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFakeEngine()
		for i := range rapid.IntRange(1, 3).Draw(t, "ups") {
			p := mustUp(t, f, drawProject(t, fmt.Sprint("project ", i)))
			mustBeDone(t, f, p)
		}
	})
}

// TestKilledUpConverges kills ups of generated projects at random, several times over, before one is let through.
func TestKilledUpConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFakeEngine()
		for i := range rapid.IntRange(1, 4).Draw(t, "kills") {
			p := loadIn(t, drawProject(t, fmt.Sprint("project ", i)))
			f.provide(p)
			plan, err := f.plan(p, PlanOptions{RemoveOrphans: true})
			if err != nil {
				t.Fatalf("plan: %v", err)
			}
			dying := &dyingEngine{fakeEngine: f, lastToo: rapid.Bool().Draw(t, "last too")}
			dying.left.Store(int32(rapid.IntRange(0, len(plan.Ops)).Draw(t, "killed after")))
			_ = Apply(context.Background(), plan, dying, Discard, ApplyOptions{})
		}
		p := mustUp(t, f, drawProject(t, "last project"))
		mustBeDone(t, f, p)
	})
}

// TestDownLeavesVolumes brings a generated project down again.
func TestDownLeavesVolumes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFakeEngine()
		p := mustUp(t, f, drawProject(t, "project"))
		have, _ := f.Observe(context.Background(), QueryFor(p))
		volumes := len(f.volumes)
		if rapid.Bool().Draw(t, "without files") {
			p = nil
		}
		plan, err := NewDownPlan("app", p, have, DownOptions{})
		if err != nil {
			t.Fatalf("plan: %v", err)
		}
		checkPlan(t, plan)
		if err := Apply(context.Background(), plan, f, Discard, ApplyOptions{}); err != nil {
			t.Fatalf("apply: %v\n%s", err, plan)
		}
		if len(f.containers) > 0 || len(f.networks) > 0 || len(f.volumes) != volumes {
			t.Fatalf("left: %s", f.state())
		}
	})
}

// TestOneChangeTouchesLittle changes one service; only that and what follows it is touched.
func TestOneChangeTouchesLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFakeEngine()
		yaml := drawProject(t, "project")
		p := mustUp(t, f, yaml)
		name := rapid.SampledFrom(p.ServiceNames()).Draw(t, "changed")
		changed := *p
		changed.Services = types.Services{}
		for n, s := range p.Services {
			if n == name {
				s.WorkingDir = "/changed"
			}
			changed.Services[n] = s
		}
		plan, err := f.plan(&changed, PlanOptions{})
		if err != nil {
			t.Fatalf("plan: %v", err)
		}
		allowed := []string{name}
		order, _ := dependencyOrder(p)
		for _, n := range order {
			for _, d := range dependencies(p.Services[n]) {
				if d.follows() && slices.Contains(allowed, d.name) {
					allowed = append(allowed, n)
				}
			}
		}
		for _, op := range plan.Ops {
			if !slices.Contains(allowed, op.Service) {
				t.Fatalf("%s changed, and %s is touched:\n%s", name, op.Service, plan)
			}
		}
		if changed.Services[name].Scale != nil && *changed.Services[name].Scale > 0 && plan.Empty() {
			t.Fatalf("%s changed, and the plan is empty", name)
		}
	})
}

// TestPartialUps ups single services of generated projects, with various flags, between full ones. A plan that can be made can be applied.
func TestPartialUps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFakeEngine()
		mustUp(t, f, drawProject(t, "first"))
		p := loadIn(t, drawProject(t, "second"))
		f.provide(p)
		for range rapid.IntRange(1, 3).Draw(t, "partial ups") {
			o := PlanOptions{
				Services: []string{rapid.SampledFrom(p.ServiceNames()).Draw(t, "service")}, RemoveOrphans: true,
				NoDeps: rapid.Bool().Draw(t, "no deps"), ForceRecreate: rapid.Bool().Draw(t, "force"), NoStart: rapid.Bool().Draw(t, "no start"),
				RenewAnonVolumes: rapid.Bool().Draw(t, "renew"), Wait: rapid.Bool().Draw(t, "wait"),
			}
			if rapid.Bool().Draw(t, "kill") {
				o.Timeout = new(time.Duration)
			}
			plan, err := f.plan(p, o)
			var refused *planError
			if errors.As(err, &refused) {
				continue
			}
			if err != nil {
				t.Fatalf("plan: %v", err)
			}
			checkPlan(t, plan)
			if err := Apply(context.Background(), plan, f, Discard, ApplyOptions{}); err != nil && !o.NoDeps {
				t.Fatalf("apply: %v\n%s", err, plan)
			}
		}
		apply(t, f, p, 8)
		mustBeDone(t, f, p)
	})
}
