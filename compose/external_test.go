// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

const externalFile = `
name: p
services:
  web: {image: a, depends_on: [db, cache], environment: {A: own, RAW: own}}
  cache: {image: b}
  db: {provider: {type: cloud, options: {size: 2}}, depends_on: [net]}
  net: {provider: {type: cloud}}
  other: {provider: {type: cloud}}
`

func TestProviders(t *testing.T) {
	p := loadText(t, externalFile)
	for _, test := range []struct {
		names  string
		noDeps bool
		want   string
	}{
		{"", false, "net db other"}, {"web", false, "net db"}, {"web", true, ""}, {"db", true, "db"}, {"cache", false, ""},
	} {
		found, err := Providers(p, strings.Fields(test.names), test.noDeps)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range found {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%q, without dependencies %t: got %q, want %q", test.names, test.noDeps, got, test.want)
		}
	}
}

func TestVariablesOfProviders(t *testing.T) {
	p := loadText(t, externalFile)
	if err := Check(p); err == nil || !strings.Contains(err.Error(), `service "db": provider: `) {
		t.Errorf("with its providers: %v", err)
	}
	q := WithoutProviders(p, map[string]Variables{"db": {Prefixed: map[string]string{"URL": "tcp://db"}, Raw: map[string]string{"RAW": "given"}}})
	if got := slices.Sorted(slices.Values(q.ServiceNames())); !slices.Equal(got, []string{"cache", "web"}) {
		t.Errorf("services %v", got)
	}
	web := q.Services["web"]
	env := web.Environment
	if *env["DB_URL"] != "tcp://db" || *env["RAW"] != "given" || *env["A"] != "own" || len(web.DependsOn) != 1 {
		t.Errorf("environment %v, depends on %v", env, web.DependsOn)
	}
	if _, changed := p.Services["web"].Environment["DB_URL"]; changed || len(p.Services["web"].DependsOn) != 2 {
		t.Error("the project was changed")
	}
	if err := Check(q); err != nil {
		t.Error(err)
	}
	if _, err := NewPlan(q, Snapshot{}, PlanOptions{NoBuild: true}); err != nil {
		t.Error(err)
	}
}

func TestAPISocket(t *testing.T) {
	p := loadText(t, "name: p\nservices:\n  a: {image: a, use_api_socket: true}\n  b: {image: a, use_api_socket: true, environment: {DOCKER_CONFIG: /mine}}\n  c: {image: a}\n")
	if err := Check(p); err == nil || !strings.Contains(err.Error(), `service "a": use_api_socket: `) {
		t.Errorf("before the socket is known: %v", err)
	}
	q := WithAPISocket(p, "/run/dev/docker.sock", `{"auths":{}}`)
	if err := Check(q); err != nil {
		t.Fatal(err)
	}
	spec, files, err := NewContainerSpec(q, q.Services["a"], ContainerInput{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(spec.Host.Binds, "/run/dev/docker.sock:/var/run/docker.sock:rw") || !slices.Contains(spec.Config.Env, "DOCKER_CONFIG=/run/secrets/docker") {
		t.Errorf("binds %v, environment %v", spec.Host.Binds, spec.Config.Env)
	}
	if len(files) != 1 || files[0].Path != "/run/secrets/docker/config.json" || string(files[0].Content) != `{"auths":{}}` {
		t.Errorf("files %v", files)
	}
	if *q.Services["b"].Environment["DOCKER_CONFIG"] != "/mine" || len(q.Services["c"].Volumes) != 0 || len(p.Services["a"].Volumes) != 0 {
		t.Error("more was changed than what was asked for")
	}
}

func TestModels(t *testing.T) {
	p := loadText(t, `
name: p
models: {small-one: {model: ai/small}, big: {model: ai/big}}
services:
  a: {image: a, models: [small-one]}
  b: {image: a, models: {big: {endpoint_var: WHERE, model_var: WHICH}}}
`)
	if err := Check(p); err == nil || !strings.Contains(err.Error(), `service "a": models: `) {
		t.Errorf("before they were asked for: %v", err)
	}
	q := WithModels(p, "http://models/v1")
	if err := Check(q); err != nil {
		t.Fatal(err)
	}
	a, b := q.Services["a"].Environment, q.Services["b"].Environment
	if *a["SMALL_ONE_MODEL"] != "ai/small" || *a["SMALL_ONE_URL"] != "http://models/v1" || *b["WHICH"] != "ai/big" || *b["WHERE"] != "http://models/v1" {
		t.Errorf("variables %v and %v", a, b)
	}
}

// loadText loads a Compose file that is given as text.
func loadText(t *testing.T, text string) *types.Project {
	t.Helper()
	p, err := Load(t.Context(), LoadOptions{WorkingDir: t.TempDir(), Files: []string{"-"}, Stdin: strings.NewReader(text), Environment: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
