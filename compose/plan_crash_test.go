// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// state is what an engine has of a project, without what differs from one run to the next.
func (f *fakeEngine) state() string {
	var lines []string
	for _, c := range f.containers {
		named := []string{}
		for _, m := range c.Mounts {
			if !anonymousName.MatchString(m.Name) {
				named = append(named, m.Name+":"+m.Destination)
			}
		}
		slices.Sort(named)
		image := c.Labels[LabelImage]
		if image != f.images[c.Image].ID {
			image = "another"
		} else {
			image = "current"
		}
		lines = append(lines, fmt.Sprintf("container %s %s/%s %s user=%s image=%s networks=%v mounts=%v",
			c.Name, c.Service(), c.Labels[LabelContainerNumber], c.State, c.spec.Config.User, image, slices.Sorted(maps.Keys(c.Networks)), named))
	}
	for name, n := range f.networks {
		lines = append(lines, fmt.Sprintf("network %s %s", name, n.Labels[LabelConfigHash]))
	}
	for name, v := range f.volumes {
		if !anonymousName.MatchString(name) {
			lines = append(lines, fmt.Sprintf("volume %s %s", name, v.Labels[LabelConfigHash]))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// anonymousVolumes maps container name and path to the anonymous volume there.
func (f *fakeEngine) anonymousVolumes() map[string]string {
	found := map[string]string{}
	for _, c := range f.containers {
		for _, m := range c.Mounts {
			if anonymousName.MatchString(m.Name) {
				found[c.Name+":"+m.Destination] = m.Name
			}
		}
	}
	return found
}

const crashBefore = `
services:
  web:
    image: nginx
    scale: 2
    networks: [front, back]
    depends_on: {api: {condition: service_started, restart: true}}
  api:
    image: api
    networks: [back]
    volumes: [/scratch]
    depends_on: {migrate: {condition: service_completed_successfully}, db: {condition: service_healthy}}
  migrate:
    image: job
    networks: [back]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: postgres
    networks: [back]
    volumes: [data:/data, /cache]
    ports: ["5432:5432"]
    healthcheck: {test: [CMD, "true"]}
  agent:
    image: agent
    network_mode: service:db
    container_name: the-agent
networks: {front: {}, back: {}}
volumes: {data: {}}
`

// TestKilledAnywhere kills an up after each of its operations, with the last one carried out or not, and ups again.
func TestKilledAnywhere(t *testing.T) {
	nobody := func(image string) func(string) string {
		return func(yaml string) string {
			return strings.Replace(yaml, "image: "+image, "image: "+image+"\n    user: nobody", 1)
		}
	}
	for name, change := range map[string]func(string) string{
		"nothing": func(yaml string) string { return yaml },
		"db":      nobody("postgres"),
		"db, port moved": func(yaml string) string {
			return strings.Replace(nobody("postgres")(yaml), `ports: ["5432:5432"]`, "ports: []", 1)
		},
		"api":             nobody("api"),
		"migrate":         nobody("job"),
		"web scaled down": func(yaml string) string { return strings.Replace(nobody("nginx")(yaml), "scale: 2", "scale: 1", 1) },
		"web scaled up":   func(yaml string) string { return strings.Replace(nobody("nginx")(yaml), "scale: 2", "scale: 4", 1) },
		"network":         func(yaml string) string { return strings.Replace(yaml, "back: {}}", "back: {internal: true}}", 1) },
		"network and db": func(yaml string) string {
			return strings.Replace(nobody("postgres")(yaml), "back: {}}", "back: {internal: true}}", 1)
		},
		"names": func(yaml string) string { return strings.Replace(yaml, "the-agent", "app-old-agent", 1) },
		"everything": func(yaml string) string {
			return strings.ReplaceAll(yaml, "    image:", "    user: nobody\n    image:")
		},
		"first up": nil,
		"name swapped": func(yaml string) string {
			return strings.Replace(strings.Replace(yaml, "the-agent", "app-x", 1), "  api:\n", "  api:\n    container_name: the-agent\n", 1)
		},
		"service removed":  func(yaml string) string { return strings.Replace(yaml, "  agent:", "  agent2:", 1) },
		"image of db only": nil,
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, crashBefore)
			fresh := func() (*fakeEngine, string) {
				f := newFakeEngine()
				f.provide(p)
				want := crashBefore
				if name != "first up" {
					if err := f.up(p, PlanOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				if name == "image of db only" {
					f.images["postgres"] = Image{ID: "sha256:" + f.id()}
				} else if change != nil {
					want = change(want)
				}
				return f, want
			}
			killAnywhere(t, fresh)
		})
	}
}

func killAnywhere(t *testing.T, fresh func() (*fakeEngine, string)) {
	t.Helper()
	options := PlanOptions{RemoveOrphans: true}
	whole, yaml := fresh()
	p := load(t, yaml)
	kept := whole.anonymousVolumes()
	plan, err := whole.plan(p, options)
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, plan)
	if err := whole.up(p, options); err != nil {
		t.Fatal(err)
	}
	want := whole.state()
	for k := range plan.Ops {
		for _, lastToo := range []bool{false, true} {
			for _, parallel := range []int{1, 8} {
				f, _ := fresh()
				dying := &dyingEngine{fakeEngine: f, lastToo: lastToo}
				dying.left.Store(int32(k))
				_ = Apply(context.Background(), plan, dying, Discard, ApplyOptions{Parallel: parallel})
				between := f.state()
				if err := f.up(p, options); err != nil {
					t.Errorf("killed after %d (%v): %v\nstate was\n%s", k, lastToo, err, between)
					continue
				}
				if got := f.state(); got != want {
					t.Errorf("killed after %d (%v): got\n%s\nwant\n%s\nstate was\n%s", k, lastToo, got, want, between)
				}
				again, err := f.plan(p, options)
				if err != nil || !again.Empty() {
					t.Errorf("killed after %d (%v): still to do: %v\n%s", k, lastToo, err, again)
				}
				if len(f.lost) > 0 {
					t.Errorf("killed after %d (%v): lost volumes %v", k, lastToo, f.lost)
				}
				for at, volume := range f.anonymousVolumes() {
					if was, ok := kept[at]; ok && was != volume {
						t.Errorf("killed after %d (%v): another volume at %s", k, lastToo, at)
					}
				}
			}
		}
	}
}
