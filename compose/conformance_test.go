// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// conformanceTable is made by this test; UPDATE=1 writes it.
const conformanceTable = "../docs/compose-compatibility.md"

// conformanceCase is one row of testdata/conformance/keys.txt.
type conformanceCase struct {
	keys         []string
	service, top string
	want         string
	noJob, noPre bool
}

// verdict is what becomes of the case's keys: honoured, warned or refused.
func (c conformanceCase) verdict() string {
	for _, v := range []string{"warned", "refused"} {
		if strings.HasPrefix(c.want, v+": ") {
			return v
		}
	}
	return "honoured"
}

func readConformance(t *testing.T) []conformanceCase {
	t.Helper()
	text, err := os.ReadFile("testdata/conformance/keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []conformanceCase
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		part := strings.Split(line, ";;")
		if len(part) != 4 {
			t.Fatalf("not four parts: %s", line)
		}
		c := conformanceCase{service: strings.TrimSpace(part[1]), top: strings.TrimSpace(part[2]), want: strings.TrimSpace(part[3])}
		for key := range strings.SplitSeq(part[0], ",") {
			c.keys = append(c.keys, strings.TrimSpace(key))
		}
		rest := strings.TrimLeft(c.service, "=~")
		marks := c.service[:len(c.service)-len(rest)]
		c.service, c.noJob, c.noPre = rest, strings.Contains(marks, "="), marks != ""
		cases = append(cases, c)
	}
	return cases
}

// asMap reads a flow mapping.
func asMap(t *testing.T, text string) map[string]any {
	t.Helper()
	m := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// place says where the keys of a service are written.
type section string

const (
	inService  section = "services"
	inPreStart section = "pre_start"
	inJob      section = "jobs"
)

// document is the file of a case: two services, the case's keys in the first, in its pre_start hook, or in a job.
func (c conformanceCase) document(t *testing.T, where section) string {
	t.Helper()
	app := map[string]any{"image": "img"}
	services := map[string]any{"app": app, "other": map[string]any{"image": "img"}}
	doc := map[string]any{"name": "p", "services": services}
	for key, value := range asMap(t, c.top) {
		if more, ok := value.(map[string]any); ok && key == "services" {
			maps.Copy(services, more)
			continue
		}
		doc[key] = value
	}
	keys := asMap(t, c.service)
	switch where {
	case inPreStart:
		app["pre_start"] = []any{keys}
	case inJob:
		job := map[string]any{"image": "img", "triggers": map[string]any{"manual": true}}
		maps.Copy(job, keys)
		doc["jobs"] = map[string]any{"job": job}
		delete(services, "app")
	default:
		maps.Copy(app, keys)
		maps.DeleteFunc(app, func(_ string, v any) bool { return v == nil })
	}
	b, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// observed is all that comes of a Compose file.
type observed struct {
	effect, warnings string
	err              error
}

// effectOf loads a file and plans for it, with every image there but those called absent or built.
func effectOf(t *testing.T, text string, where section) observed {
	t.Helper()
	dir, err := filepath.Abs("testdata/conformance")
	if err != nil {
		t.Fatal(err)
	}
	var warnings, effect strings.Builder
	p, err := Load(t.Context(), LoadOptions{
		WorkingDir: dir, Files: []string{"-"}, Stdin: strings.NewReader(text), Environment: map[string]string{"FROM_ENV": "content of FROM_ENV"},
		AllResources: where == inJob,
		Warn:         func(w Warning) { warnings.WriteString(w.String() + "\n") },
	})
	if err != nil {
		return observed{err: err}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Jobs)) {
		_, err := WithJob(p, name)
		fmt.Fprintf(&effect, "job %s: %v\n", name, err)
	}
	if where == inJob {
		if p, err = WithJob(p, "job"); err != nil {
			return observed{err: err}
		}
	}
	p = supply(p, &effect)
	plan, err := planAll(t, p, where)
	if err != nil {
		return observed{err: err}
	}
	for _, w := range plan.Warnings {
		warnings.WriteString(w.String() + "\n")
	}
	if where == inService {
		describeModel(t, p, &effect)
	}
	effect.WriteString(plan.String())
	for _, op := range plan.Ops {
		describeOp(t, op, &effect)
	}
	return observed{effect: strings.ReplaceAll(effect.String(), dir, "$DIR"), warnings: warnings.String()}
}

// supply gives the project what programs outside would.
func supply(p *types.Project, effect *strings.Builder) *types.Project {
	for _, name := range p.ServiceNames() {
		if s := p.Services[name]; s.Provider != nil {
			fmt.Fprintf(effect, "provider %s %v\n", s.Provider.Type, s.Provider.Options)
		}
	}
	for name, m := range p.Models {
		b, _ := json.Marshal(m)
		fmt.Fprintf(effect, "model %s %s\n", name, b)
	}
	return WithAPISocket(WithModels(WithoutProviders(p, nil), "http://models"), "/run/engine.sock", "{}")
}

// planAll is the plan of `up`, or of `run` for a job.
func planAll(t *testing.T, p *types.Project, where section) (Plan, error) {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	have := Snapshot{Now: now, Images: map[string]Image{}}
	for _, name := range QueryFor(p).Images {
		if name != "absent" && name != "built" {
			have.Images[name] = Image{ID: "sha256:" + name, Tagged: now.Add(-48 * time.Hour)}
		}
	}
	have.Networks, have.Volumes = map[string]Network{}, map[string]Volume{}
	for _, n := range p.Networks {
		if n.External {
			have.Networks[n.Name] = Network{ID: n.Name, Name: n.Name}
		}
	}
	for _, v := range p.Volumes {
		if v.External {
			have.Volumes[v.Name] = Volume{Name: v.Name}
		}
	}
	if where == inJob {
		return NewRunPlan(p, have, RunOptions{Service: "job", OneOff: OneOff{Slug: "0123456789ab"}})
	}
	for _, s := range p.Services {
		if slices.Contains(s.VolumesFrom, "other") {
			have = withOther(t, p, have)
		}
	}
	return NewPlan(p, have, PlanOptions{})
}

// withOther adds the running container of the service other to what is there.
func withOther(t *testing.T, p *types.Project, have Snapshot) Snapshot {
	t.Helper()
	spec, _, err := NewContainerSpec(p, p.Services["other"], ContainerInput{Number: 1, ImageID: "sha256:img"})
	if err != nil {
		t.Fatal(err)
	}
	network, err := NewNetworkSpec(p, "default")
	if err != nil {
		t.Fatal(err)
	}
	have.Networks = map[string]Network{network.Name: {ID: "net", Name: network.Name, Labels: network.Labels}}
	have.Containers = append(have.Containers, Container{
		ID: "other-id", Name: spec.Name, Labels: spec.Config.Labels, State: StateRunning, ImageID: "sha256:img", Networks: map[string]string{network.Name: "net"},
	})
	return have
}

// describeModel adds what no plan has: what watching and attaching look at, and what stopping will run.
func describeModel(t *testing.T, p *types.Project, b *strings.Builder) {
	t.Helper()
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		if s.Develop != nil && len(s.Develop.Watch) > 0 {
			rules, _, err := WatchRules(p, []string{name})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rules {
				exec, _ := json.Marshal(r.Exec)
				fmt.Fprintf(b, "watch %s %s %s ignore %v include %v initial %t %s\n", filepath.Base(r.Path), r.Action, r.Target, r.Ignored, r.Included, r.InitialSync, exec)
			}
		}
		if s.Attach != nil {
			fmt.Fprintf(b, "\"attach\":%t\n", *s.Attach)
		}
		have := Snapshot{Containers: []Container{{ID: "x", Name: "x", State: StateRunning, Labels: map[string]string{
			LabelProject: p.Name, LabelService: name, LabelConfigHash: "x", LabelContainerNumber: "1",
		}}}}
		plan, err := NewStopPlan(p.Name, p, have, StopOptions{Services: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range plan.Ops {
			describeOp(t, op, b)
		}
	}
}

// describeOp adds what an operation gives the engine, without dev's own record of it.
func describeOp(t *testing.T, op Op, b *strings.Builder) {
	t.Helper()
	if op.Container != nil {
		delete(op.Container.Config.Labels, LabelServiceConfig)
	}
	for _, v := range []any{op.Container, op.Network, op.Volume, op.Image, op.Build, op.Files, op.Hook} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != "null" {
			b.Write(text)
			b.WriteByte('\n')
		}
	}
	for _, f := range op.Files {
		fmt.Fprintf(b, "content of %s\n", strings.TrimPrefix(string(f.Content), "content of "))
	}
}

// shows returns what is wrong with an observed, empty if it shows what the case wants.
func (c conformanceCase) shows(o observed) string {
	want := c.want
	switch v := c.verdict(); v {
	case "refused":
		if want = strings.TrimPrefix(want, "refused: "); o.err == nil || !strings.Contains(o.err.Error(), want) {
			return fmt.Sprintf("error %v, want %q", o.err, want)
		}
		return ""
	case "warned":
		want = strings.TrimPrefix(want, "warned: ")
		if o.err != nil || !strings.Contains(o.warnings, want) {
			return fmt.Sprintf("error %v, warnings %q, want %q", o.err, o.warnings, want)
		}
		return ""
	}
	if o.err != nil {
		return "error " + o.err.Error()
	}
	if without, ok := strings.CutPrefix(want, "without: "); ok {
		if strings.Contains(o.effect, without) {
			return fmt.Sprintf("%q is in\n%s", without, o.effect)
		}
		return ""
	}
	if !strings.Contains(o.effect, want) {
		return fmt.Sprintf("%q is not in\n%s", want, o.effect)
	}
	return ""
}

// evidence is what becomes of a key, and the test that shows it.
type evidence struct{ verdict, by string }

// TestConformance tries every key of the Compose specification, and compares the table of what becomes of each with the one in docs.
func TestConformance(t *testing.T) {
	shown := map[string]evidence{}
	plain := effectOf(t, conformanceCase{}.document(t, inService), inService)
	for _, c := range readConformance(t) {
		t.Run(c.keys[0], func(t *testing.T) {
			try := func(where section, rename func(string) string) {
				if wrong := c.shows(effectOf(t, c.document(t, where), where)); wrong != "" {
					t.Errorf("in %s: %s", where, wrong)
				}
				for _, key := range c.keys {
					shown[rename(key)] = evidence{c.verdict(), "`TestConformance/" + c.keys[0] + "`"}
				}
			}
			if c.verdict() == "honoured" && !strings.HasPrefix(c.want, "without: ") && !slices.Contains(c.keys, "services.*.image") && c.shows(plain) == "" {
				t.Errorf("%q is there without the key, too", c.want)
			}
			try(inService, func(key string) string { return key })
			of := specKeys(t)
			inHook := func(key string) string { return strings.Replace(key, "services.*.", "services.*.pre_start.", 1) }
			ofJob := func(key string) string { return strings.Replace(key, "services.*.", "jobs.*.", 1) }
			if key := c.keys[len(c.keys)-1]; c.service != "" && strings.HasPrefix(key, "services.*.") {
				if slices.Contains(of, inHook(key)) && !c.noPre {
					try(inPreStart, inHook)
				}
				if slices.Contains(of, ofJob(key)) && !c.noJob {
					try(inJob, ofJob)
				}
			}
		})
	}
	if t.Failed() {
		return
	}
	compareTable(t, shown)
}

// compareTable fails for keys without a row, and if the table in docs is not what the test has shown.
func compareTable(t *testing.T, shown map[string]evidence) {
	t.Helper()
	var b strings.Builder
	b.WriteString(conformanceIntro)
	for _, key := range specKeys(t) {
		found, ok := shown[key]
		if !ok {
			found = asService(key, shown)
			found.by = "as the service's key, by the same code: " + found.by
		}
		if found.verdict == "" {
			t.Errorf("key %s of the specification has no row in testdata/conformance/keys.txt", key)
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, found.verdict, found.by)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(conformanceTable, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(conformanceTable)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(string(have), "\r\n", "\n") != b.String() {
		t.Errorf("%s is not what this test shows: write it with UPDATE=1 go test ./compose -run TestConformance", conformanceTable)
	}
}

// asService is the verdict of a service's key for the same key of a pre_start hook or a job.
func asService(key string, shown map[string]evidence) evidence {
	for _, prefix := range []string{"services.*.pre_start.", "jobs.*."} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			return shown["services.*."+rest]
		}
	}
	return evidence{}
}

const conformanceIntro = `# Every key of the Compose specification

What becomes of each key of the specification's JSON schema, as compose-go ships it. The table is made by a test
(` + "`compose/conformance_test.go`" + `), which tries each key in a small Compose file of its own (` + "`compose/testdata/conformance/keys.txt`" + `) and looks for
its effect in what the engine would be given; it fails for a key without a row, and when this file is not what it has seen.

- **honoured**: it has its effect;
- **warned**: it has no effect here and leaving it out does no harm; a warning names file, line, service and field;
- **refused**: an error names file, line, service and field before anything is changed.

[compatibility.md](compatibility.md) says more of each field, and where values of an honoured key are refused.

| key | | shown by |
|---|---|---|
`

// specKeys lists every key of the specification by its path: "*" stands for a name, list items have the list's path.
func specKeys(t *testing.T) []string {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &root); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	w := specWalk{root: root, add: func(path []string) { found[strings.Join(path, ".")] = true }}
	w.walk(root, nil, 0)
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int { return cmp.Compare(a, b) })
}

type specWalk struct {
	root map[string]any
	add  func(path []string)
}

// walk goes through a schema; depth guards against one that refers to itself.
func (w specWalk) walk(node map[string]any, path []string, depth int) {
	if depth > 40 {
		return
	}
	if ref, ok := node["$ref"].(string); ok {
		at := w.root
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			at, _ = at[part].(map[string]any)
		}
		w.walk(at, path, depth+1)
	}
	for _, key := range []string{"oneOf", "anyOf", "allOf"} {
		list, _ := node[key].([]any)
		for _, one := range list {
			if m, ok := one.(map[string]any); ok {
				w.walk(m, path, depth+1)
			}
		}
	}
	properties, _ := node["properties"].(map[string]any)
	for name, one := range properties {
		below := append(slices.Clone(path), name)
		w.add(below)
		if m, ok := one.(map[string]any); ok {
			w.walk(m, below, depth+1)
		}
	}
	patterns, _ := node["patternProperties"].(map[string]any)
	for pattern, one := range patterns {
		if m, ok := one.(map[string]any); ok && pattern != "^x-" {
			w.walk(m, append(slices.Clone(path), "*"), depth+1)
		}
	}
	for _, key := range []string{"additionalProperties", "items"} {
		if m, ok := node[key].(map[string]any); ok {
			below := path
			if key == "additionalProperties" {
				below = append(slices.Clone(path), "*")
			}
			w.walk(m, below, depth+1)
		}
	}
}
