// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/enginetest"
)

// TestSameAsDockerCompose lets docker compose and then ourselves create the same project on the same engine, and compares what the engine
// says about each container, network and volume, configuration hashes included.
func TestSameAsDockerCompose(t *testing.T) {
	program := os.Getenv("DEV_TEST_COMPOSE")
	if program == "" {
		var err error
		if program, err = exec.LookPath("docker-compose"); err != nil {
			t.Skip("no docker-compose in PATH, and DEV_TEST_COMPOSE names none")
		}
	}
	r := newReal(t)
	enginetest.BusyboxImage(t, enginetest.Start(t).Client(t), "busybox:latest")
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": t.TempDir(), "PATH": os.Getenv("PATH"), "DOCKER_HOST": r.Host(), "FROM_ENV": "yes"}
	peer := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(r.ctx, program, append([]string{"-f", filepath.Join(dir, "same.yaml")}, args...)...)
		for k, v := range env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker compose %v: %v\n%s", args, err, out)
		}
	}
	peer("create", "--pull", "never")
	theirs := r.inspectProject("same")
	peer("down", "-v", "-t", "0")

	p, err := compose.Load(r.ctx, compose.LoadOptions{WorkingDir: dir, Files: []string{"same.yaml"}, Environment: env})
	if err != nil {
		t.Fatal(err)
	}
	r.createProject(p)
	ours := r.inspectProject("same")
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if ours[name] == nil {
			t.Errorf("%s: we did not make it", name)
			continue
		}
		compareTrees(t, name, theirs[name], ours[name])
	}
	if len(ours) != len(theirs) {
		t.Errorf("%d things, docker compose makes %d", len(ours), len(theirs))
	}
}

// createProject makes all of a project, without starting it.
func (r *real) createProject(p *types.Project) {
	r.t.Helper()
	for _, key := range p.NetworkNames() {
		spec, err := compose.NewNetworkSpec(p, key)
		if err != nil {
			r.t.Fatal(err)
		}
		r.apply(compose.Op{Kind: compose.OpCreateNetwork, Network: &spec})
	}
	for _, key := range p.VolumeNames() {
		spec, err := compose.NewVolumeSpec(p, key)
		if err != nil {
			r.t.Fatal(err)
		}
		r.apply(compose.Op{Kind: compose.OpCreateVolume, Volume: &spec})
	}
	made := map[string]compose.Ref{}
	var create func(name string)
	create = func(name string) {
		if _, done := made[name]; done {
			return
		}
		s := p.Services[name]
		for _, needed := range s.GetDependencies() {
			create(needed)
		}
		for n := 1; n <= s.GetScale(); n++ {
			spec, _, err := compose.NewContainerSpec(p, s, compose.ContainerInput{Number: n, Services: made})
			if err != nil {
				r.t.Fatal(err)
			}
			made[name] = compose.Ref{ID: r.apply(compose.Op{Kind: compose.OpCreateContainer, Service: name, Container: &spec}).ID}
		}
	}
	for _, name := range p.ServiceNames() {
		create(name)
	}
}

// inspectProject is what the engine says of a project's containers, networks and volumes, by kind and name, with IDs replaced by names.
func (r *real) inspectProject(project string) map[string]any {
	r.t.Helper()
	all := map[string]any{}
	api := enginetest.Start(r.t).Client(r.t)
	filter := client.Filters{}.Add("label", compose.LabelProject+"="+project)
	containers, err := api.ContainerList(r.ctx, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		r.t.Fatal(err)
	}
	names := map[string]string{}
	for _, c := range containers.Items {
		names[c.ID] = c.Names[0]
		in, err := api.ContainerInspect(r.ctx, c.ID, client.ContainerInspectOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		all["container "+c.Names[0]] = map[string]any{
			"Config": in.Container.Config, "HostConfig": in.Container.HostConfig, "Networks": in.Container.NetworkSettings.Networks, "Mounts": in.Container.Mounts,
		}
	}
	networks, err := api.NetworkList(r.ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range networks.Items {
		names[n.ID] = n.Name
		all["network "+n.Name] = n
	}
	volumes, err := api.VolumeList(r.ctx, client.VolumeListOptions{Filters: filter})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range volumes.Items {
		all["volume "+v.Name] = v
	}
	for name, v := range all {
		all[name] = comparable(r.t, v, names)
	}
	return all
}

// comparable is a value as a tree in which the same things look the same: times and our own labels left out, IDs replaced, lists without an
// order of their own sorted.
func comparable(t *testing.T, v any, names map[string]string) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for id, name := range names {
		b = bytes.ReplaceAll(b, []byte(id), []byte(name))
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	return tidy("", tree)
}

func tidy(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, value := range v {
			if k == "Created" || k == "CreatedAt" || k == "Id" || strings.HasPrefix(k, "dev.compose.") || k == compose.LabelImage || k == compose.LabelConfigHash && key == "" {
				delete(v, k)
				continue
			}
			if v[k] = tidy(k, value); k == compose.LabelDependsOn {
				v[k] = sortedText(value, ",")
			}
		}
		if v["Type"] == "volume" && len(text(v["Name"])) == 64 {
			v["Name"], v["Source"] = "anonymous", ""
		}
	case []any:
		for i := range v {
			v[i] = tidy(key, v[i])
		}
		switch key {
		case "Env", "Binds", "Mounts", "Ulimits", "ExtraHosts":
			slices.SortFunc(v, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

func text(v any) string {
	b, _ := json.Marshal(v)
	return strings.Trim(string(b), `"`)
}

func sortedText(v any, sep string) string {
	parts := strings.Split(text(v), sep)
	slices.Sort(parts)
	return strings.Join(parts, sep)
}

// compareTrees reports each place where two trees differ.
func compareTrees(t *testing.T, path string, want, got any) {
	t.Helper()
	a, okA := want.(map[string]any)
	b, okB := got.(map[string]any)
	listA, isListA := want.([]any)
	listB, isListB := got.([]any)
	switch {
	case okA && okB:
		keys := maps.Clone(a)
		maps.Copy(keys, b)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			compareTrees(t, path+"."+k, a[k], b[k])
		}
	case isListA && isListB && len(listA) == len(listB):
		for i := range listA {
			compareTrees(t, path+"["+strconv.Itoa(i)+"]", listA[i], listB[i])
		}
	case !reflect.DeepEqual(want, got):
		t.Errorf("%s:\ndocker compose %s\nwe             %s", path, text(want), text(got))
	}
}
