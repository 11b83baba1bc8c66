// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestStopWaves(t *testing.T) {
	c := func(name, project, needs string) container.Summary {
		return container.Summary{ID: name, Names: []string{"/" + name}, Labels: map[string]string{labelProject: project, labelService: name, labelDependsOn: needs}}
	}
	for name, list := range map[string]struct {
		containers []container.Summary
		want       string
	}{
		"none":            {nil, ""},
		"on its own":      {[]container.Summary{{ID: "x"}, {ID: "y"}}, "x y"},
		"a chain":         {[]container.Summary{c("db", "p", ""), c("app", "p", "db:service_healthy:true"), c("web", "p", "app:service_started:false,db:service_started:false")}, "web|app|db"},
		"another project": {[]container.Summary{c("db", "p", ""), c("app", "q", "db:service_started:false")}, "app db"},
		"a circle":        {[]container.Summary{c("a", "p", "b:x:y"), c("b", "p", "a:x:y"), c("c", "p", "a:x:y")}, "c|a b"},
		"itself":          {[]container.Summary{c("a", "p", "a:x:y")}, "a"},
	} {
		var waves []string
		for _, wave := range stopWaves(list.containers) {
			var names []string
			for _, c := range wave {
				names = append(names, nameOf(c))
			}
			waves = append(waves, strings.Join(names, " "))
		}
		if got := strings.Join(waves, "|"); got != list.want {
			t.Errorf("%s: %q, want %q", name, got, list.want)
		}
	}
}

// TestRestartPolicies: what an engine that ends and starts again would do.
func TestRestartPolicies(t *testing.T) {
	const started = "2026-01-01T00:00:00Z"
	for name, c := range map[string]struct {
		policy       string
		most, tries  int
		state        container.State
		noted, again bool
	}{
		"no":                          {"no", 0, 0, container.State{Running: true, StartedAt: started}, false, false},
		"always":                      {"always", 0, 0, container.State{Running: true, StartedAt: started}, true, true},
		"always, stopped":             {"always", 0, 0, container.State{ExitCode: 137, StartedAt: started}, true, true},
		"always, never started":       {"always", 0, 0, container.State{StartedAt: "0001-01-01T00:00:00Z"}, false, false},
		"unless-stopped":              {"unless-stopped", 0, 0, container.State{Running: true, StartedAt: started}, true, true},
		"unless-stopped, was":         {"unless-stopped", 0, 0, container.State{StartedAt: started}, false, false},
		"unless-stopped, backing off": {"unless-stopped", 0, 0, container.State{Restarting: true, StartedAt: started}, true, true},
		"on-failure, failed":          {"on-failure", 0, 0, container.State{Running: true, ExitCode: 1, StartedAt: started}, true, true},
		"on-failure, well":            {"on-failure", 0, 0, container.State{Running: true, StartedAt: started}, true, false},
		"on-failure, too often":       {"on-failure", 3, 3, container.State{Running: true, ExitCode: 1, StartedAt: started}, true, false},
		"on-failure, not so yet":      {"on-failure", 3, 2, container.State{Running: true, ExitCode: 1, StartedAt: started}, true, true},
	} {
		r := container.InspectResponse{State: &c.state, RestartCount: c.tries, HostConfig: &container.HostConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(c.policy), MaximumRetryCount: c.most},
		}}
		if got := mayRestart(r); got != c.noted {
			t.Errorf("%s: noted %v", name, got)
		}
		if !c.noted {
			continue
		}
		c.state.Running, c.state.Restarting = false, false // stopped meanwhile
		if got := restartsNow(r); got != c.again {
			t.Errorf("%s: started again %v", name, got)
		}
	}
	for _, s := range []container.State{{Running: true}, {Restarting: true}, {Dead: true}} {
		r := container.InspectResponse{State: &s, HostConfig: &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"}}}
		if restartsNow(r) {
			t.Errorf("%+v is started", s)
		}
	}
}

// TestNotedContainersAreKept: what an earlier stop noted, and no start has done, is not forgotten.
func TestNotedContainersAreKept(t *testing.T) {
	a := &agent{o: Options{Containers: t.TempDir() + "/containers.json"}}
	for _, wanted := range [][]toStartItem{nil, {{ID: "1", Name: "a"}}, {{ID: "2", Name: "b", Wave: -1}}, nil} {
		if err := a.noteContainers(wanted); err != nil {
			t.Fatal(err)
		}
	}
	got, err := a.notedContainers()
	if want := []toStartItem{{ID: "2", Name: "b", Wave: -1}, {ID: "1", Name: "a"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}
