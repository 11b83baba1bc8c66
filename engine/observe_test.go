// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/seed71221737/dev/compose"
)

func labels(project, service string) map[string]string {
	return map[string]string{compose.LabelProject: project, compose.LabelService: service}
}

func projectFake(t *testing.T) *fake {
	f := newFake(t)
	f.reply("GET /containers/json", 200, []container.Summary{
		{ID: "b", Names: []string{"/app-b-1"}, Labels: labels("app", "b"), State: "exited", Status: "Exited (3) 2 minutes ago"},
		{ID: "a", Names: []string{"/other/db", "/app-a-1"}, Labels: labels("app", "a"), State: "running", Status: "Up 2 minutes (healthy)"},
	})
	f.reply("GET /networks", 200, []network.Summary{
		{Network: network.Network{Name: "app_default", ID: "n1", Labels: labels("app", "")}},
		{Network: network.Network{Name: "strange", ID: "n2"}}, {Network: network.Network{Name: "ext", ID: "n3"}},
	})
	f.reply("GET /volumes", 200, volume.ListResponse{Volumes: []volume.Volume{
		{Name: "app_data", Driver: "local", Labels: labels("app", "")}, {Name: "strange"}, {Name: "ext"},
	}})
	f.reply("GET /images/json", 200, []image.Summary{{ID: "sha256:1", RepoTags: []string{"nginx:latest"}}})
	return f
}

var wholeQuery = compose.Query{Project: "app", Networks: []string{"ext"}, Volumes: []string{"ext"}, Images: []string{"nginx", "missing:1"}}

func TestObserveTakesOneCallForEachKind(t *testing.T) {
	f := projectFake(t)
	snap, err := f.client().Observe(t.Context(), wholeQuery)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /containers/json", "GET /images/json", "GET /networks", "GET /volumes"}
	if got := f.called(); !slices.Equal(got, want) {
		t.Errorf("calls: got %q, want %q", got, want)
	}
	var names []string
	for _, c := range snap.Containers {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"app-a-1", "app-b-1"}) {
		t.Errorf("containers: %q", names)
	}
	if c := snap.Containers[1]; c.ExitCode != 3 || c.State != compose.StateExited {
		t.Errorf("exited container: %+v", c)
	}
	if c := snap.Containers[0]; c.Health != compose.HealthHealthy {
		t.Errorf("healthy container: %+v", c)
	}
	if len(snap.Networks) != 2 || snap.Networks["ext"].ID != "n3" || snap.Networks["app_default"].ID != "n1" {
		t.Errorf("networks: %+v", snap.Networks)
	}
	if len(snap.Volumes) != 2 || snap.Volumes["app_data"].Driver != "local" {
		t.Errorf("volumes: %+v", snap.Volumes)
	}
	if len(snap.Images) != 1 || snap.Images["nginx"].ID != "sha256:1" {
		t.Errorf("images: %+v", snap.Images)
	}
	if d := time.Since(snap.Now); d < -5*time.Second || d > 5*time.Second {
		t.Errorf("the engine's time is %v from ours", d)
	}
}

func TestObserveAsksOnlyForWhatIsWanted(t *testing.T) {
	f := projectFake(t)
	_, err := f.client().Observe(t.Context(), compose.Query{Project: "app", SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.called(); !slices.Equal(got, []string{"GET /containers/json"}) {
		t.Errorf("calls: %q", got)
	}
}

// TestObserveTakesImagesFromContainers: of images that only their ID is wanted of, those are asked for that no container tells.
func TestObserveTakesImagesFromContainers(t *testing.T) {
	const one, two = "sha256:1", "sha256:2"
	made := func(image, id, label string) container.Summary {
		l := labels("app", "a")
		if label != "" {
			l[compose.LabelImage] = label
		}
		return container.Summary{ID: "c", Names: []string{"/app-a-1"}, Labels: l, Image: image, ImageID: id, State: "running"}
	}
	const moby = "Docker/29.0.0 (linux)"
	for name, c := range map[string]struct {
		server   string
		made     []container.Summary
		q        compose.Query
		want     string // of nginx
		filtered []string
	}{
		"told":                  {server: moby, made: []container.Summary{made("nginx", one, one)}, want: one},
		"told without a label":  {server: moby, made: []container.Summary{made("nginx", one, "")}, want: one},
		"one of two moved":      {server: moby, made: []container.Summary{made(one, one, one), made("nginx", two, two)}, want: two},
		"moved or gone":         {server: moby, made: []container.Summary{made(one, one, one)}, filtered: []string{"nginx:latest"}, want: "sha256:listed"},
		"made by another name":  {server: moby, made: []container.Summary{made("nginx:latest", one, one)}, filtered: []string{"nginx:latest"}, want: "sha256:listed"},
		"label of another kind": {server: moby, made: []container.Summary{made("nginx", one, two)}, filtered: []string{"nginx:latest"}, want: "sha256:listed"},
		"another engine":        {server: "Libpod/5.4.2 (linux)", made: []container.Summary{made("nginx", one, one)}, filtered: []string{"nginx:latest"}, want: "sha256:listed"},
		"one of two is told": {
			server: moby, made: []container.Summary{made("nginx", one, one)}, want: one, filtered: []string{"other:1"},
			q: compose.Query{Images: []string{"nginx", "other:1"}, IDOnly: []string{"nginx", "other:1"}},
		},
		"more than the ID is wanted of one": {
			server: moby, made: []container.Summary{made("nginx", one, one)}, want: "sha256:listed", filtered: []string{"nginx:latest", "other:1"},
			q: compose.Query{Images: []string{"nginx", "other:1"}, IDOnly: []string{"nginx"}},
		},
		"no containers wanted": {server: moby, want: "sha256:listed", filtered: []string{"nginx:latest"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.server = c.server
			f.reply("GET /containers/json", 200, c.made)
			var filtered []string
			f.on("GET /images/json", func(w http.ResponseWriter, r *http.Request) {
				var filters map[string]map[string]bool
				if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters); err != nil {
					t.Error(err)
				}
				filtered = slices.Sorted(maps.Keys(filters["reference"]))
				answer(w, 200, []image.Summary{{ID: "sha256:listed", RepoTags: []string{"nginx:latest", "other:1"}}})
			})
			q := c.q
			if q.Images == nil {
				q.Images, q.IDOnly = []string{"nginx"}, []string{"nginx"}
			}
			q.SkipNetworks, q.SkipVolumes = true, true
			if c.made != nil {
				q.Project = "app"
			}
			snap, err := f.client().Observe(t.Context(), q)
			if err != nil || snap.Images["nginx"].ID != c.want || len(snap.Images) != len(q.Images) {
				t.Errorf("got %+v, %v, want nginx to be %s", snap.Images, err, c.want)
			}
			if !slices.Equal(filtered, c.filtered) {
				t.Errorf("asked for %q, want %q", filtered, c.filtered)
			}
		})
	}
}

// TestToldImagesByID: a reference that is an ID says nothing about whether there is still such an image.
func TestToldImagesByID(t *testing.T) {
	id := "sha256:" + strings.Repeat("1", 64)
	if got := toldImages([]string{id}, []compose.Container{{Image: id, ImageID: id}}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestObserveAdaptsToAnOlderEngine(t *testing.T) {
	f := projectFake(t)
	f.version = "1.41"
	c := f.client()
	for range 2 {
		if _, err := c.Observe(t.Context(), wholeQuery); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.called()); n != 8 {
		t.Errorf("%d calls were understood, want 4 for each observation: %q", n, f.called())
	}
	if v := c.api.Load().ClientVersion(); v != "1.41" {
		t.Errorf("API version %s", v)
	}
}

func TestObserveRefusesAnAncientEngine(t *testing.T) {
	f := projectFake(t)
	f.version = "1.30"
	_, err := f.client().Observe(t.Context(), wholeQuery)
	if err == nil || !strings.Contains(err.Error(), "speaks API version 1.30") {
		t.Errorf("got %v", err)
	}
}

func TestObserveNamesTheProjectInErrors(t *testing.T) {
	f := newFake(t)
	f.reply("GET /containers/json", 500, "the disk is on fire")
	_, err := f.client().Observe(t.Context(), compose.Query{Project: "app", SkipNetworks: true, SkipVolumes: true})
	if err == nil || err.Error() != `observe project "app": the disk is on fire` {
		t.Errorf("got %v", err)
	}
}

func TestObserveInspectsImagesWhoseAgeIsAsked(t *testing.T) {
	f := projectFake(t)
	tagged := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.reply("GET /images/nginx/json", 200, image.InspectResponse{ID: "sha256:1", Metadata: image.Metadata{LastTagTime: tagged}})
	snap, err := f.client().Observe(t.Context(), compose.Query{
		Images: []string{"nginx", "missing:1"}, Tagged: []string{"nginx", "missing:1"}, SkipNetworks: true, SkipVolumes: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := snap.Images["nginx"].Tagged; !got.Equal(tagged) {
		t.Errorf("tagged %v", got)
	}
	if got := f.called(); !slices.Equal(got, []string{"GET /images/json", "GET /images/nginx/json"}) {
		t.Errorf("calls: %q", got)
	}
}

func TestObserveFindsImagesByID(t *testing.T) {
	f := newFake(t)
	f.reply("GET /images/json", 200, []image.Summary{})
	f.reply("GET /images/{id}/json", 200, image.InspectResponse{ID: "sha256:cafe00", Os: "linux", Architecture: "arm64", Variant: "v8"})
	snap, err := f.client().Observe(t.Context(), compose.Query{Images: []string{"cafe", "web:1"}, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]compose.Image{"cafe": {ID: "sha256:cafe00", Platform: "linux/arm64"}}
	if !reflect.DeepEqual(snap.Images, want) {
		t.Errorf("got %+v, want %+v", snap.Images, want)
	}
}

func TestNewContainer(t *testing.T) {
	got := newContainer(&container.Summary{
		ID: "id", Names: []string{"/x"}, Image: "nginx", ImageID: "sha256:1", Command: "nginx -g", Created: 1000,
		State: "running", Status: "Up 1 second", Labels: labels("app", "web"),
		Health: &container.HealthSummary{Status: container.Starting},
		NetworkSettings: &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{
			"front": {NetworkID: "n1"}, "back": nil,
		}},
		Mounts: []container.MountPoint{{Type: mount.TypeVolume, Name: "data", Source: "/s", Destination: "/d"}},
		Ports: []container.PortSummary{
			{PrivatePort: 80, Type: "tcp", PublicPort: 8080, IP: netip.MustParseAddr("::")},
			{PrivatePort: 80, Type: "tcp", PublicPort: 8080, IP: netip.MustParseAddr("0.0.0.0")},
			{PrivatePort: 53, Type: "udp"},
		},
	})
	want := compose.Container{
		ID: "id", Name: "x", Image: "nginx", ImageID: "sha256:1", Command: "nginx -g", Created: time.Unix(1000, 0), Labels: labels("app", "web"),
		State: compose.StateRunning, Status: "Up 1 second", Health: compose.HealthStarting,
		Networks: map[string]string{"front": "n1", "back": ""},
		Mounts:   []compose.Mount{{Type: "volume", Name: "data", Source: "/s", Destination: "/d"}},
		Ports: []compose.Port{
			{ContainerPort: 53, Protocol: "udp"},
			{HostIP: "0.0.0.0", HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
			{HostIP: "::", HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if at, ok := Published(got, 80, ""); !ok || at != "0.0.0.0:8080" {
		t.Errorf("published: %q %v", at, ok)
	}
	if _, ok := Published(got, 53, "udp"); ok {
		t.Error("a port that is only exposed counts as published")
	}
}

func TestPickNetworksPrefersTheProjects(t *testing.T) {
	one := func(id, project string) network.Summary {
		return network.Summary{Network: network.Network{Name: "net", ID: id, Labels: labels(project, "")}}
	}
	q := compose.Query{Project: "app", Networks: []string{"net"}}
	for name, list := range map[string][]network.Summary{
		"first": {one("own", "app"), one("other", "b"), one("third", "")},
		"last":  {one("other", "b"), one("third", ""), one("own", "app")},
	} {
		got := pickNetworks(list, q)["net"]
		if got.ID != "own" || got.Duplicates != 2 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestWantedImages(t *testing.T) {
	tests := []struct {
		ref, pattern string
		image        image.Summary
		is           bool
	}{
		{"nginx", "nginx:latest", image.Summary{RepoTags: []string{"nginx:latest"}}, true},
		{"docker.io/library/nginx", "nginx:latest", image.Summary{RepoTags: []string{"nginx:latest"}}, true},
		{"nginx:1", "nginx:1", image.Summary{RepoTags: []string{"nginx:latest"}}, false},
		{"localhost:5000/a/b:2", "localhost:5000/a/b:2", image.Summary{RepoTags: []string{"x:1", "localhost:5000/a/b:2"}}, true},
		{"nginx@" + digest, "nginx", image.Summary{ID: "sha256:other", RepoDigests: []string{"nginx@" + digest}}, true},
		{"nginx:1@" + digest, "nginx", image.Summary{ID: digest, RepoTags: []string{"nginx:2"}}, true},
		{"nginx@" + digest, "nginx", image.Summary{ID: digest, RepoTags: []string{"nginx@" + digest}}, true},
		{"nginx@" + digest, "nginx", image.Summary{ID: digest, RepoTags: []string{"nginx2:1"}}, false},
		{"nginx@" + digest, "nginx", image.Summary{ID: "sha256:other", RepoTags: []string{"nginx:1"}}, false},
	}
	for _, tt := range tests {
		w, err := newWanted(tt.ref)
		if err != nil {
			t.Errorf("%s: %v", tt.ref, err)
			continue
		}
		if got := w.pattern(); got != tt.pattern {
			t.Errorf("%s: pattern %q, want %q", tt.ref, got, tt.pattern)
		}
		if got := w.is(&tt.image); got != tt.is {
			t.Errorf("%s is %+v: got %v", tt.ref, tt.image, got)
		}
	}
	if _, err := newWanted("UPPER"); err == nil || !strings.Contains(err.Error(), `"UPPER"`) {
		t.Errorf("bad reference: %v", err)
	}
}

func TestListedPlatform(t *testing.T) {
	one := func(arch, variant string, available bool) image.ManifestSummary {
		return image.ManifestSummary{Kind: image.ManifestKindImage, Available: available, ImageData: &image.ImageProperties{
			Platform: ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant},
		}}
	}
	tests := map[string][]image.ManifestSummary{
		"":             {one("amd64", "", true), one("arm64", "", true)},
		"linux/amd64":  {one("amd64", "", true), one("arm64", "", false), {Kind: image.ManifestKindAttestation, Available: true}},
		"linux/arm64":  {one("arm64", "v8", true)},
		"linux/arm/v7": {one("arm", "v7", true)},
	}
	for want, list := range tests {
		if got := listedPlatform(list); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestProjects(t *testing.T) {
	f := newFake(t)
	l := func(project, files string) map[string]string {
		return map[string]string{compose.LabelProject: project, compose.LabelConfigFiles: files}
	}
	f.reply("GET /containers/json", 200, []container.Summary{
		{ID: "1", Labels: l("b", "/b/compose.yaml"), State: "running"}, {ID: "2", Labels: l("a", "/a/1.yaml,/a/2.yaml"), State: "exited"},
		{ID: "3", Labels: l("a", "/a/1.yaml"), State: "running"},
	})
	got, err := f.client().Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Project{
		{Name: "a", ConfigFiles: []string{"/a/1.yaml", "/a/2.yaml"}, States: map[compose.State]int{"exited": 1, "running": 1}},
		{Name: "b", ConfigFiles: []string{"/b/compose.yaml"}, States: map[compose.State]int{"running": 1}},
	}
	if !reflect.DeepEqual(got, want) || len(f.called()) != 1 {
		t.Errorf("got %+v after %q", got, f.called())
	}
}

func TestImagesAsksForEachImageOnce(t *testing.T) {
	f := newFake(t)
	f.on("GET /images/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "sha256:gone" {
			answer(w, 404, "no such image")
			return
		}
		answer(w, 200, image.InspectResponse{ID: "sha256:1", RepoTags: []string{"nginx:1.25"}, Os: "linux", Architecture: "amd64", Size: 7})
	})
	got, err := f.client().Images(t.Context(), []compose.Container{
		{Name: "a", Image: "nginx", ImageID: "sha256:1"}, {Name: "b", Image: "sha256:1", ImageID: "sha256:1"}, {Name: "c", Image: "sha256:gone", ImageID: "sha256:gone"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, i := range got {
		rows = append(rows, strings.Join([]string{i.Container.Name, i.ID, i.Repository, i.Tag, i.Platform}, " "))
	}
	want := []string{"a sha256:1 nginx latest linux/amd64", "b sha256:1 nginx 1.25 linux/amd64", "c sha256:gone   "}
	if !slices.Equal(rows, want) {
		t.Errorf("got %q, want %q", rows, want)
	}
	if n := f.count("GET /images/sha256:1/json"); n != 1 {
		t.Errorf("%d inspections of one image", n)
	}
}

// TestObserveListsAtOnce: no list waits for another; a slow one is given up with the context.
func TestObserveListsAtOnce(t *testing.T) {
	f := newFake(t)
	var together sync.WaitGroup
	together.Add(4)
	for _, route := range []string{"GET /containers/json", "GET /networks", "GET /volumes", "GET /images/json"} {
		f.on(route, func(w http.ResponseWriter, r *http.Request) {
			together.Done()
			together.Wait()
			<-r.Context().Done()
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { together.Wait(); cancel() }()
	if _, err := f.client().Observe(ctx, wholeQuery); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
