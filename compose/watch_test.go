// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// watched is a project in a folder with the triggers for its service web, which is built there.
func watched(t *testing.T, ignore string, triggers ...types.Trigger) (*types.Project, string) {
	t.Helper()
	dir := t.TempDir()
	if ignore != "" {
		if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(ignore), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range triggers {
		triggers[i].Path = filepath.Join(dir, filepath.FromSlash(triggers[i].Path))
	}
	p := &types.Project{Name: "p", WorkingDir: dir, Services: types.Services{"web": {
		Name: "web", WorkloadSpec: types.WorkloadSpec{Build: &types.BuildConfig{Context: dir}}, Develop: &types.DevelopConfig{Watch: triggers},
	}}}
	return p, dir
}

// text is a plan in lines, with the folder left out.
func text(plan []WatchBatch, dir string) string {
	var b strings.Builder
	for _, batch := range plan {
		fmt.Fprintf(&b, "%s:", batch.Service)
		if batch.Rebuild {
			b.WriteString(" rebuild")
		}
		for _, r := range batch.Remove {
			b.WriteString(" -" + r)
		}
		for _, c := range batch.Copy {
			from, _ := filepath.Rel(dir, c.From)
			b.WriteString(" +" + filepath.ToSlash(from) + ">" + c.To)
			if c.Dir {
				b.WriteString("/")
			}
		}
		for _, e := range batch.Exec {
			b.WriteString(" exec=" + strings.Join(e.Command, ","))
		}
		if batch.Restart {
			b.WriteString(" restart")
		}
		b.WriteString("\n")
	}
	return strings.TrimSpace(b.String())
}

func TestWatchPlan(t *testing.T) {
	sync := func(path, target string, ignore ...string) types.Trigger {
		return types.Trigger{Path: path, Action: types.WatchActionSync, Target: target, Ignore: ignore}
	}
	for _, test := range []struct {
		name     string
		ignore   string
		triggers []types.Trigger
		changes  string // words: a path, -path gone, path/ a folder
		want     string
	}{
		{"a saved file", "", []types.Trigger{sync("src", "/app")}, "src/a.js src/lib/b.js other/c", "web: +src/a.js>/app/a.js +src/lib/b.js>/app/lib/b.js"},
		{"a new folder comes before what is in it", "", []types.Trigger{sync("src", "/app")}, "src/n/x src/n/", "web: +src/n>/app/n/ +src/n/x>/app/n/x"},
		{"the rule's folder itself is the image's", "", []types.Trigger{sync("src", "/app")}, "src/ -src/", ""},
		{"a folder that is gone takes its files along", "", []types.Trigger{sync("src", "/app")}, "-src/d/ -src/d/x -src/d.js -src/da/y", "web: -/app/d -/app/d.js -/app/da/y"},
		{"a neighbour with a longer name is another path", "", []types.Trigger{sync("src", "/app")}, "src2/a", ""},
		{"one file", "", []types.Trigger{sync("app.conf", "/etc/app.conf")}, "app.conf", "web: +app.conf>/etc/app.conf"},
		{"one file into a folder", "", []types.Trigger{sync("app.conf", "/etc/")}, "app.conf", "web: +app.conf>/etc/app.conf"},
		{"one file is gone", "", []types.Trigger{sync("app.conf", "/etc/app.conf")}, "-app.conf", "web: -/etc/app.conf"},
		{"ignored by the rule", "", []types.Trigger{sync("src", "/app", "node_modules/", "**/*.test.js", "!keep.test.js")},
			"src/node_modules/x/y src/a.test.js src/d/b.test.js src/keep.test.js src/a.js", "web: +src/a.js>/app/a.js +src/keep.test.js>/app/keep.test.js"},
		{"ignored by .dockerignore, relative to the context", "dist\nsrc/gen\n!src/gen/kept\n", []types.Trigger{sync("src", "/app")},
			"src/dist src/gen/x src/gen/kept", "web: +src/dist>/app/dist +src/gen/kept>/app/gen/kept"},
		{"what editors and git leave", "", []types.Trigger{sync(".", "/app")}, ".git/index a.js~ .a.js.swp sub/.#b 4913 .github/w", "web: +.github/w>/app/.github/w"},
		{"included only", "", []types.Trigger{{Path: "src", Action: types.WatchActionSync, Target: "/app", Include: []string{"**/*.py"}}},
			"src/a.py src/d/ src/d/b.py src/c.txt", "web: +src/a.py>/app/a.py +src/d/b.py>/app/d/b.py"},
		{"rebuild", "", []types.Trigger{{Path: "go.mod", Action: types.WatchActionRebuild}, sync("src", "/app")}, "go.mod src/x", "web: rebuild +src/x>/app/x"},
		{"a new folder alone rebuilds nothing", "", []types.Trigger{{Path: ".", Action: types.WatchActionRebuild}}, "d/", ""},
		{"restart", "", []types.Trigger{{Path: "conf", Action: types.WatchActionRestart}}, "conf/a conf/b", "web: restart"},
		{"sync+restart", "", []types.Trigger{{Path: "conf", Action: types.WatchActionSyncRestart, Target: "/conf"}}, "conf/a -conf/b", "web: -/conf/b +conf/a>/conf/a restart"},
		{"a rebuilt service needs no restart", "", []types.Trigger{{Path: ".", Action: types.WatchActionRebuild}, {Path: "conf", Action: types.WatchActionRestart}}, "conf/a", "web: rebuild"},
		{"sync+exec runs once", "", []types.Trigger{{Path: ".", Action: types.WatchActionSyncExec, Target: "/app", Exec: types.ServiceHook{Command: []string{"nginx", "-s", "reload"}}}},
			"a b", "web: +a>/app/a +b>/app/b exec=nginx,-s,reload"},
		{"two rules for one place copy once", "", []types.Trigger{sync(".", "/app"), sync("src", "/app/src")}, "src/a", "web: +src/a>/app/src/a"},
		{"replaced by another kind: the archive does it", "", []types.Trigger{sync(".", "/app")}, "-x/ x", "web: +x>/app/x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, dir := watched(t, test.ignore, test.triggers...)
			rules, warnings, err := WatchRules(p, nil)
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			var changes []WatchChange
			for word := range strings.FieldsSeq(test.changes) {
				name, removed := strings.CutPrefix(word, "-")
				name, isDir := strings.CutSuffix(name, "/")
				changes = append(changes, WatchChange{Path: filepath.Join(dir, filepath.FromSlash(name)), Removed: removed, Dir: isDir})
			}
			if got := text(NewWatchPlan(rules, changes), dir); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestWatchPlanSaysWhichFiles(t *testing.T) {
	p, dir := watched(t, "", types.Trigger{Path: ".", Action: types.WatchActionRebuild}, types.Trigger{Path: "a", Action: types.WatchActionRestart})
	rules, _, err := WatchRules(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	plan := NewWatchPlan(rules, []WatchChange{{Path: filepath.Join(dir, "b")}, {Path: filepath.Join(dir, "a")}})
	if want := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}; len(plan) != 1 || !slices.Equal(plan[0].Causes, want) {
		t.Errorf("got %+v, want the causes %v", plan, want)
	}
}

func TestWatchRulesRefuse(t *testing.T) {
	rule := func(tr types.Trigger) func(*types.Project) {
		return func(p *types.Project) {
			p.Services["web"] = types.ServiceConfig{Name: "web", Develop: &types.DevelopConfig{Watch: []types.Trigger{tr}}}
		}
	}
	for _, test := range []struct {
		name   string
		change func(*types.Project)
		names  []string
		want   string
	}{
		{"no rules at all", func(p *types.Project) { p.Services["web"] = types.ServiceConfig{Name: "web"} }, nil, "no service has a develop.watch section"},
		{"none for the named", func(p *types.Project) { p.Services["db"] = types.ServiceConfig{Name: "db"} }, []string{"db"}, `service "db" has no develop.watch`},
		{"rebuild without build", rule(types.Trigger{Path: "/x", Action: types.WatchActionRebuild}), nil, `service "web": develop.watch[0].action: the service has no build section`},
		{"relative target", rule(types.Trigger{Path: "/x", Action: types.WatchActionSync, Target: "app"}), nil, `develop.watch[0].target: "app" is not an absolute path`},
		{"exec without command", rule(types.Trigger{Path: "/x", Action: types.WatchActionSyncExec, Target: "/app"}), nil, "develop.watch[0].exec.command: missing"},
		{"bad pattern", rule(types.Trigger{Path: "/x", Action: types.WatchActionSync, Target: "/app", Ignore: []string{"[a"}}), nil, `read the patterns ["[a"]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, _ := watched(t, "", types.Trigger{Path: ".", Action: types.WatchActionSync, Target: "/app"})
			test.change(p)
			if _, _, err := WatchRules(p, test.names); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestWatchLeavesOutWhatIsMounted(t *testing.T) {
	p, dir := watched(t, "", types.Trigger{Path: "src", Action: types.WatchActionSync, Target: "/app/src"}, types.Trigger{Path: "go.mod", Action: types.WatchActionRebuild})
	s := p.Services["web"]
	s.Volumes = []types.ServiceVolumeConfig{{Type: types.VolumeTypeBind, Source: dir, Target: "/app"}}
	p.Services["web"] = s
	rules, warnings, err := WatchRules(p, nil)
	if err != nil || len(rules) != 1 || rules[0].Action != types.WatchActionRebuild || len(warnings) != 1 {
		t.Fatal(rules, warnings, err)
	}
	if got := warnings[0].String(); !strings.Contains(got, `service "web": develop.watch[0].path: left out`) {
		t.Error(got)
	}
}

func TestWatchPrunes(t *testing.T) {
	p, dir := watched(t, "vendor\nout\n!out/kept\n", types.Trigger{Path: "src", Action: types.WatchActionSync, Target: "/app", Ignore: []string{"node_modules"}},
		types.Trigger{Path: "src/vendored", Action: types.WatchActionSync, Target: "/v"})
	rules, _, err := WatchRules(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dir        string
		first, all bool
	}{
		{".", false, false}, {"src", false, false}, {"src/a", false, false}, {"src/node_modules", true, true}, {"src/node_modules/x", true, true},
		{"src/.git", true, true}, {"vendor", true, true}, {"other", true, true}, {"src/vendored", false, false}, {"src/vendored/x", false, false},
	} {
		name := filepath.Join(dir, test.dir)
		all := !slices.ContainsFunc(rules, func(r WatchRule) bool { return !r.Prunes(name) })
		if rules[0].Prunes(name) != test.first || all != test.all {
			t.Errorf("%s: pruned %t, by all %t", test.dir, rules[0].Prunes(name), all)
		}
	}
}

func TestDockerignoreOfTheDockerfileWins(t *testing.T) {
	p, dir := watched(t, "a\n", types.Trigger{Path: ".", Action: types.WatchActionSync, Target: "/app"})
	p.Services["web"].Build.Dockerfile = "dev.Dockerfile"
	if err := os.WriteFile(filepath.Join(dir, "dev.Dockerfile.dockerignore"), []byte("# comment\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, _, err := WatchRules(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !rules[0].Covers(filepath.Join(dir, "a")) || rules[0].Covers(filepath.Join(dir, "b")) {
		t.Error("the patterns of .dockerignore are used, not those beside the Dockerfile")
	}
}

// TestWatchPlanOfAStorm: planning is linear enough for a checkout of a large repository.
func TestWatchPlanOfAStorm(t *testing.T) {
	p, dir := watched(t, "node_modules\n", types.Trigger{Path: ".", Action: types.WatchActionSync, Target: "/app", Ignore: []string{"**/*.log"}})
	rules, _, err := WatchRules(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	changes := make([]WatchChange, n)
	for i := range changes {
		changes[i].Path = filepath.Join(dir, fmt.Sprintf("pkg%d", i%100), fmt.Sprintf("file%d.go", i))
	}
	plan := NewWatchPlan(rules, changes)
	if len(plan) != 1 || len(plan[0].Copy) != n {
		t.Fatalf("%d batches", len(plan))
	}
}
