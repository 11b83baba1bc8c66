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
	"github.com/moby/moby/api/types/network"
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
	p, err := compose.Load(r.ctx, compose.LoadOptions{WorkingDir: dir, Files: []string{"same.yaml"}, Environment: env})
	if err != nil {
		t.Fatal(err)
	}
	peer("create", "--pull", "never")
	theirs := r.inspectProject("same")
	r.expectHashes(p)
	peer("down", "-v", "-t", "0")
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
	before := r.containerIDs(p)
	peer("create", "--pull", "never")
	if after := r.containerIDs(p); !maps.Equal(before, after) {
		t.Errorf("docker compose does not keep our containers:\n%v\n%v", before, after)
	}
}

// containerIDs are the project's containers by name.
func (r *real) containerIDs(p *types.Project) map[string]string {
	r.t.Helper()
	have, err := r.Observe(r.ctx, compose.Query{Project: p.Name})
	if err != nil {
		r.t.Fatal(err)
	}
	ids := map[string]string{}
	for _, c := range have.Containers {
		ids[c.Name] = c.ID
	}
	return ids
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

// expectHashes compares the configuration hashes on a project's containers with ours: equal ones mean that the containers are kept.
func (r *real) expectHashes(p *types.Project) {
	r.t.Helper()
	have, err := r.Observe(r.ctx, compose.Query{Project: p.Name})
	if err != nil {
		r.t.Fatal(err)
	}
	refs := map[string]compose.Ref{}
	for _, c := range slices.Backward(have.Containers) { // in the end the first by name
		refs[c.Service()] = compose.Ref{ID: c.ID}
	}
	for _, c := range have.Containers {
		want, err := compose.ServiceHash(p, compose.WithContainers(p.Services[c.Service()], refs))
		if err != nil || c.Labels[compose.LabelConfigHash] != want {
			r.t.Errorf("%s: docker compose has hash %s, we %s (%v)", c.Name, c.Labels[compose.LabelConfigHash], want, err)
		}
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
		if n.Name != project+"_front" {
			n.IPAM = network.IPAM{} // addresses as the engine had them free
		}
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
		all[name] = comparableTree(r.t, v, names)
	}
	// Its hash covers the IDs of other containers.
	delete(all["container /"+project+"-shared-1"].(map[string]any)["Config"].(map[string]any)["Labels"].(map[string]any), compose.LabelConfigHash)
	return all
}

// comparableTree is a value as a tree in which the same things look the same: times and our own labels left out, IDs replaced, lists without an
// order of their own sorted.
func comparableTree(t *testing.T, v any, names map[string]string) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for id, name := range names {
		b = bytes.ReplaceAll(b, []byte(id), []byte(name))
		b = bytes.ReplaceAll(b, []byte(id[:12]), []byte(name))
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	return tidy("", tree)
}

// untold lists what differs from one creation to the next, is ours alone, or says nothing: docker compose fills in IPAddress, which the engine
// does not look at before a container starts.
var untold = []string{"Created", "CreatedAt", "Id", "IPAddress", compose.LabelImage, compose.LabelVersion, compose.LabelServiceConfig, compose.LabelFiles}

func tidy(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, value := range v {
			if slices.Contains(untold, k) {
				delete(v, k)
			} else if v[k] = tidy(k, value); k == compose.LabelDependsOn {
				v[k] = sortedText(value, ",")
			}
		}
		if v["Type"] == "volume" && len(text(v["Name"])) == 64 {
			v["Name"], v["Source"] = "anonymous", ""
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = tidy(key, v[i])
		}
		switch key {
		case "Env", "Binds", "Mounts", "Ulimits", "ExtraHosts":
			slices.SortFunc(v, func(a, b any) int { return strings.Compare(place(a), place(b)) })
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// place is what an item of a list is sorted by: a mount's place in the container, or the whole item.
func place(v any) string {
	if m, ok := v.(map[string]any); ok && (m["Target"] != nil || m["Destination"] != nil) {
		return text(m["Target"]) + text(m["Destination"])
	}
	return text(v)
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
