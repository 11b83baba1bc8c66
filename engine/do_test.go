// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"

	"github.com/seed71221737/dev/compose"
)

var onX = compose.Ref{ID: "x"}

// TestAimReached: an operation succeeds when what it wants is so already.
func TestAimReached(t *testing.T) {
	tests := []struct {
		kind    compose.OpKind
		route   string
		code    int
		message string
	}{
		{compose.OpStartContainer, "POST /containers/x/start", 304, ""},
		{compose.OpStopContainer, "POST /containers/x/stop", 304, ""},
		{compose.OpStopContainer, "POST /containers/x/stop", 404, "No such container: x"},
		{compose.OpKillContainer, "POST /containers/x/kill", 409, "cannot kill container: x: container x is not running"},
		{compose.OpKillContainer, "POST /containers/x/kill", 404, "No such container: x"},
		{compose.OpPauseContainer, "POST /containers/x/pause", 409, "Container x is already paused"},
		{compose.OpUnpauseContainer, "POST /containers/x/unpause", 500, "Container x is not paused"},
		{compose.OpRenameContainer, "POST /containers/x/rename", 400, "Error when allocating new name: same name as its current name"},
		{compose.OpRemoveContainer, "DELETE /containers/x", 404, "No such container: x"},
		{compose.OpRemoveNetwork, "DELETE /networks/x", 404, "network x not found"},
		{compose.OpRemoveVolume, "DELETE /volumes/x", 404, "no such volume"},
		{compose.OpRemoveImage, "DELETE /images/nginx", 404, "No such image: nginx"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.kind, tt.code), func(t *testing.T) {
			f := newFake(t)
			f.on(tt.route, func(w http.ResponseWriter, _ *http.Request) {
				if tt.message == "" {
					w.WriteHeader(tt.code)
					return
				}
				answer(w, tt.code, tt.message)
			})
			op := compose.Op{Kind: tt.kind, Ref: onX, Image: &compose.ImageSpec{Ref: "nginx"}, Name: "y"}
			if _, _, err := do(t, f.client(), op, nil); err != nil {
				t.Error(err)
			}
			if f.count(tt.route) == 0 {
				t.Errorf("the engine was not asked: %q", f.called())
			}
		})
	}
}

// TestFailuresStayFailures: the same operations, with answers that must not be taken for success.
func TestFailuresStayFailures(t *testing.T) {
	tests := []struct {
		kind    compose.OpKind
		route   string
		code    int
		message string
	}{
		{compose.OpStartContainer, "POST /containers/x/start", 404, "No such container: x"},
		{compose.OpStopContainer, "POST /containers/x/stop", 500, "cannot stop container"},
		{compose.OpKillContainer, "POST /containers/x/kill", 400, "invalid signal: FOO"},
		{compose.OpPauseContainer, "POST /containers/x/pause", 409, "Container x is not running"},
		{compose.OpRestartContainer, "POST /containers/x/restart", 404, "No such container: x"},
		{compose.OpRemoveContainer, "DELETE /containers/x", 409, "cannot remove container: container is running"},
		{compose.OpRemoveImage, "DELETE /images/nginx", 409, "conflict: image is being used by running container"},
		{compose.OpCopyFiles, "PUT /containers/x/archive", 404, "No such container: x"},
	}
	for _, tt := range tests {
		f := newFake(t)
		f.reply(tt.route, tt.code, tt.message)
		op := compose.Op{Kind: tt.kind, Ref: onX, Image: &compose.ImageSpec{Ref: "nginx"}}
		if _, _, err := do(t, f.client(), op, nil); err == nil || err.Error() != tt.message {
			t.Errorf("%s: got %v, want %s", tt.kind, err, tt.message)
		}
	}
}

func TestDoNeedsWhatTheOperationIsOn(t *testing.T) {
	f := newFake(t)
	_, _, err := do(t, f.client(), compose.Op{Kind: compose.OpStartContainer, Ref: compose.Ref{Op: 3}}, compose.Results{})
	if err == nil || !strings.Contains(err.Error(), "operation 3") {
		t.Errorf("got %v", err)
	}
	if _, _, err := do(t, f.client(), compose.Op{Kind: "dance"}, nil); err == nil {
		t.Error("an unknown operation is done")
	}
	if _, _, err := do(t, f.client(), compose.Op{Kind: compose.OpBuildImage, Build: &compose.BuildSpec{}}, nil); err == nil {
		t.Error("an image is built without a builder")
	}
}

func TestStopRoundsTheTimeoutUp(t *testing.T) {
	f := newFake(t)
	var asked []string
	f.on("POST /containers/x/stop", func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		w.WriteHeader(204)
	})
	c := f.client()
	half, none := 500*time.Millisecond, time.Duration(0)
	for _, d := range []*time.Duration{nil, &half, &none} {
		if _, _, err := do(t, c, compose.Op{Kind: compose.OpStopContainer, Ref: onX, Timeout: d}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"", "t=1", "t=0"}; !slices.Equal(asked, want) {
		t.Errorf("got %q, want %q", asked, want)
	}
}

func createOp(image string) compose.Op {
	return compose.Op{Kind: compose.OpCreateContainer, Service: "web", Container: &compose.ContainerSpec{
		Name:     "app-web-1",
		Platform: "linux/amd64",
		Config: &container.Config{Image: "nginx", Labels: map[string]string{
			compose.LabelProject: "app", compose.LabelService: "web", compose.LabelContainerNumber: "1",
			compose.LabelConfigHash: "h", compose.LabelOneOff: "False", compose.LabelImage: image,
		}},
		Host: &container.HostConfig{NetworkMode: "front"},
		Networks: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			"back": {Aliases: []string{"web"}}, "front": {},
		}},
	}}
}

// created has the fake create containers, and returns what was asked last.
func created(f *fake) *container.CreateRequest {
	req := &container.CreateRequest{}
	f.on("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		*req = container.CreateRequest{}
		_ = json.NewDecoder(r.Body).Decode(req)
		answer(w, 201, container.CreateResponse{ID: "new", Warnings: []string{"careful"}})
	})
	return req
}

func TestCreateContainer(t *testing.T) {
	f := newFake(t)
	req := created(f)
	r, _, err := do(t, f.client(), createOp("sha256:1"), nil)
	if err != nil || r.ID != "new" || !slices.Equal(r.Warnings, []string{"careful"}) {
		t.Fatalf("got %+v, %v", r, err)
	}
	if req.Image != "nginx" || len(req.NetworkingConfig.EndpointsConfig) != 2 || req.Labels[compose.LabelImage] != "sha256:1" {
		t.Errorf("asked for %+v", req)
	}
	if got := f.called(); !slices.Equal(got, []string{"HEAD /_ping", "POST /containers/create"}) {
		t.Errorf("calls %q", got)
	}
}

func TestCreateContainerLabelsTheImage(t *testing.T) {
	f := newFake(t)
	req := created(f)
	f.reply("GET /images/nginx/json", 200, image.InspectResponse{ID: "sha256:found"})
	op := createOp("")
	if _, _, err := do(t, f.client(), op, nil); err != nil {
		t.Fatal(err)
	}
	if got := req.Labels[compose.LabelImage]; got != "sha256:found" {
		t.Errorf("found image: label %q", got)
	}
	if op.Container.Config.Labels[compose.LabelImage] != "" {
		t.Error("the plan was changed")
	}
	op.Container.Image = compose.Ref{Op: 1}
	if _, _, err := do(t, f.client(), op, compose.Results{1: {ID: "sha256:made"}}); err != nil {
		t.Fatal(err)
	}
	if got := req.Labels[compose.LabelImage]; got != "sha256:made" {
		t.Errorf("made image: label %q", got)
	}
}

func TestCreateContainerWithoutItsImage(t *testing.T) {
	f := newFake(t)
	f.reply("POST /containers/create", 404, "No such image: nginx:latest")
	_, _, err := do(t, f.client(), createOp("sha256:1"), nil)
	if err == nil || hintOf(err) != "dev pull web" {
		t.Errorf("got %v, hint %q", err, hintOf(err))
	}
}

func TestCreateContainerOnAnOlderEngine(t *testing.T) {
	f := newFake(t)
	f.version = "1.43"
	req := created(f)
	f.reply("POST /networks/back/connect", 200, nil)
	if _, _, err := do(t, f.client(), createOp("sha256:1"), nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := req.NetworkingConfig.EndpointsConfig["front"]; !ok || len(req.NetworkingConfig.EndpointsConfig) != 1 {
		t.Errorf("created with %+v", req.NetworkingConfig)
	}
	if f.count("POST /networks/back/connect") != 1 {
		t.Errorf("calls %q", f.called())
	}
}

func TestCreateContainerWhoseNameIsTaken(t *testing.T) {
	const conflict = `Conflict. The container name "/app-web-1" is already in use by container "y".`
	tests := map[string]struct {
		change func(map[string]string)
		want   string
	}{
		"same":          {func(map[string]string) {}, ""},
		"other hash":    {func(l map[string]string) { l[compose.LabelConfigHash] = "z" }, `taken by container "app-web-1" of project "app"`},
		"other project": {func(l map[string]string) { l[compose.LabelProject] = "b" }, `taken by container "app-web-1" of project "b"`},
		"nobody's":      {func(l map[string]string) { clear(l) }, `taken by container "app-web-1"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.reply("POST /containers/create", 409, conflict)
			op := createOp("sha256:1")
			have := container.Config{Labels: map[string]string{}}
			for k, v := range op.Container.Config.Labels {
				have.Labels[k] = v
			}
			tt.change(have.Labels)
			f.reply("GET /containers/app-web-1/json", 200, container.InspectResponse{ID: "y", Name: "/app-web-1", Config: &have})
			r, _, err := do(t, f.client(), op, nil)
			switch {
			case tt.want == "" && (err != nil || r.ID != "y"):
				t.Errorf("got %+v, %v", r, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || hintOf(err) == ""):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRemoveContainerWaitsForAnotherRemoval(t *testing.T) {
	f := newFake(t)
	f.reply("DELETE /containers/x", 409, "removal of container x is already in progress")
	f.reply("POST /containers/x/wait", 200, container.WaitResponse{})
	if _, _, err := do(t, f.client(), compose.Op{Kind: compose.OpRemoveContainer, Ref: onX, Force: true}, nil); err != nil {
		t.Error(err)
	}
	if f.count("POST /containers/x/wait") != 1 {
		t.Errorf("calls %q", f.called())
	}
}

func TestRenameContainerToATakenName(t *testing.T) {
	f := newFake(t)
	f.reply("POST /containers/x/rename", 409, "Conflict. The container name is already in use")
	f.reply("GET /containers/y/json", 200, container.InspectResponse{ID: "z", Name: "/y", Config: &container.Config{Labels: labels("b", "w")}})
	_, _, err := do(t, f.client(), compose.Op{Kind: compose.OpRenameContainer, Ref: onX, Name: "y"}, nil)
	if err == nil || err.Error() != `the name "y" is taken by container "y" of project "b"` {
		t.Errorf("got %v", err)
	}
	f2 := newFake(t)
	f2.reply("POST /containers/x/rename", 409, "Conflict. The container name is already in use")
	f2.reply("GET /containers/y/json", 200, container.InspectResponse{ID: "x", Name: "/y", Config: &container.Config{}})
	if _, _, err := do(t, f2.client(), compose.Op{Kind: compose.OpRenameContainer, Ref: onX, Name: "y"}, nil); err != nil {
		t.Errorf("renamed already: %v", err)
	}
}

func networkOp() compose.Op {
	return compose.Op{Kind: compose.OpCreateNetwork, Network: &compose.NetworkSpec{Name: "app_default", Labels: map[string]string{
		compose.LabelProject: "app", compose.LabelNetwork: "default",
	}}}
}

func TestCreateNetwork(t *testing.T) {
	f := newFake(t)
	f.reply("POST /networks/create", 201, network.CreateResponse{ID: "n", Warning: "hm"})
	r, _, err := do(t, f.client(), networkOp(), nil)
	if err != nil || r.ID != "n" || len(r.Warnings) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestCreateNetworkThatExists(t *testing.T) {
	for name, tt := range map[string]struct {
		labels map[string]string
		want   string
	}{
		"own":     {map[string]string{compose.LabelProject: "app", compose.LabelNetwork: "default"}, ""},
		"foreign": {map[string]string{compose.LabelProject: "b"}, `there is a network "app_default" already, of project "b"`},
		"nobody":  {nil, `there is a network "app_default" already, which no project made`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.reply("POST /networks/create", 409, "network with name app_default already exists")
			f.reply("GET /networks/app_default", 200, network.Inspect{Network: network.Network{ID: "n", Labels: tt.labels}})
			r, _, err := do(t, f.client(), networkOp(), nil)
			if tt.want == "" && (err != nil || r.ID != "n") || tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func TestCreateNetworkHints(t *testing.T) {
	for message, hint := range map[string]string{
		"all predefined address pools have been fully subnetted":                        "docker network prune",
		"invalid pool request: Pool overlaps with other one on this address space":      "choose another subnet",
		"could not find an available, non-overlapping IPv4 address pool among defaults": "address-pools",
	} {
		f := newFake(t)
		f.reply("POST /networks/create", 400, message)
		_, _, err := do(t, f.client(), networkOp(), nil)
		if err == nil || !strings.Contains(hintOf(err), hint) {
			t.Errorf("%s: got %v, hint %q", message, err, hintOf(err))
		}
	}
}

func TestRemoveNetworkRetriesWhileEndpointsVanish(t *testing.T) {
	f := newFake(t)
	var tries atomic.Int32
	f.on("DELETE /networks/x", func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) < 3 {
			answer(w, 403, "error while removing network: network app_default id x has active endpoints")
			return
		}
		w.WriteHeader(204)
	})
	f.reply("GET /containers/json", 200, []container.Summary{})
	if _, _, err := do(t, f.client(), compose.Op{Kind: compose.OpRemoveNetwork, Ref: onX}, nil); err != nil {
		t.Error(err)
	}
	if n := tries.Load(); n != 3 {
		t.Errorf("%d attempts", n)
	}
}

func TestRemoveNamesTheUsers(t *testing.T) {
	for _, tt := range []struct {
		kind           compose.OpKind
		route, message string
	}{
		{compose.OpRemoveNetwork, "DELETE /networks/x", "network x has active endpoints"},
		{compose.OpRemoveVolume, "DELETE /volumes/x", "remove x: volume is in use - [c]"},
	} {
		f := newFake(t)
		f.reply(tt.route, 409, tt.message)
		f.reply("GET /containers/json", 200, []container.Summary{
			{ID: "c", Names: []string{"/b-web-1"}, Labels: labels("b", "web"), State: "running"}, {ID: "d", Names: []string{"/old"}, State: "removing"},
		})
		_, _, err := do(t, f.client(), compose.Op{Kind: tt.kind, Ref: onX}, nil)
		if err == nil || err.Error() != `still used by container "b-web-1" of project "b"` {
			t.Errorf("%s: got %v", tt.kind, err)
		}
		if f.count(tt.route) != 1 {
			t.Errorf("%s: tried again although somebody uses it", tt.kind)
		}
	}
}

func TestCreateVolume(t *testing.T) {
	f := newFake(t)
	var req volume.CreateRequest
	f.on("POST /volumes/create", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&req)
		answer(w, 201, volume.Volume{Name: "v"})
	})
	spec := volume.CreateRequest{Name: "v", Driver: "local", DriverOpts: map[string]string{"type": "tmpfs"}, Labels: labels("app", "")}
	r, _, err := do(t, f.client(), compose.Op{Kind: compose.OpCreateVolume, Volume: &compose.VolumeSpec{CreateRequest: spec}}, nil)
	if err != nil || r.ID != "v" || req.DriverOpts["type"] != "tmpfs" || req.Labels[compose.LabelProject] != "app" {
		t.Errorf("got %+v, %v; asked %+v", r, err, req)
	}
}

func TestCopyFiles(t *testing.T) {
	f := newFake(t)
	var got []string
	f.on("PUT /containers/x/archive", func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "to "+r.URL.Query().Get("path"))
		for tr := tar.NewReader(r.Body); ; {
			h, err := tr.Next()
			if err != nil {
				break
			}
			b, _ := io.ReadAll(tr)
			got = append(got, fmt.Sprintf("%s %d:%d %o %s", h.Name, h.Uid, h.Gid, h.Mode, b))
		}
	})
	op := compose.Op{Kind: compose.OpCopyFiles, Ref: compose.Ref{Op: 2}, Files: []compose.File{
		{Path: "/run/secrets/a", Content: []byte("geheim"), UID: 1, GID: 2, Mode: 0o400}, {Path: "/etc/b", Mode: 0o644},
	}}
	if _, _, err := do(t, f.client(), op, compose.Results{2: {ID: "x"}}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"to /", "run/secrets/a 1:2 400 geheim", "etc/b 0:0 644 "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCopyFilesIntoAReadOnlyContainer(t *testing.T) {
	f := newFake(t)
	f.reply("PUT /containers/x/archive", 403, "container rootfs is marked read-only")
	op := compose.Op{Kind: compose.OpCopyFiles, Ref: onX, Files: []compose.File{{Path: "/etc/b"}}}
	_, _, err := do(t, f.client(), op, nil)
	if err == nil || !strings.Contains(err.Error(), "/etc/b cannot be put there") || hintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

// pulls has the fake answer a pull with messages, and the image be there afterwards.
func pulls(f *fake, messages ...string) *string {
	auth := new(string)
	f.on("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		*auth = r.Header.Get("X-Registry-Auth")
		_, _ = io.WriteString(w, strings.Join(messages, "\n"))
	})
	f.reply("GET /images/{id...}", 200, image.InspectResponse{ID: "sha256:pulled"})
	return auth
}

func pullOp(ref string) compose.Op {
	return compose.Op{Kind: compose.OpPullImage, Image: &compose.ImageSpec{Ref: ref, Platform: "linux/amd64"}}
}

func TestPullTellsOfEachLayer(t *testing.T) {
	f := newFake(t)
	pulls(f, `{"status":"Pulling from library/nginx","id":"latest"}`,
		`{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"layer"}`, `{"status":"Status: Downloaded"}`)
	r, events, err := do(t, f.client(), pullOp("nginx"), nil)
	if err != nil || r.ID != "sha256:pulled" {
		t.Fatalf("got %+v, %v", r, err)
	}
	if len(events) != 3 || events[1].Part != "layer" || events[1].Current != 5 || events[1].Total != 10 || events[1].Kind != compose.EventProgress {
		t.Errorf("events %+v", events)
	}
}

func TestPullFailures(t *testing.T) {
	for message, hint := range map[string]string{
		"pull access denied for nginx, repository does not exist or may require 'docker login'": "docker login",
		"manifest unknown": "name and tag",
		"no matching manifest for linux/amd64 in the manifest list entries":                             "another tag",
		"Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host": "proxies",
	} {
		f := newFake(t)
		body, _ := json.Marshal(map[string]any{"errorDetail": map[string]any{"message": message}, "error": message})
		pulls(f, string(body))
		_, _, err := do(t, f.client(), pullOp("nginx"), nil)
		if err == nil || !strings.Contains(err.Error(), message) || !strings.Contains(hintOf(err), hint) {
			t.Errorf("%s: got %v, hint %q", message, err, hintOf(err))
		}
	}
	f := newFake(t)
	f.reply("POST /images/create", 401, "unauthorized: authentication required")
	_, _, err := do(t, f.client(), pullOp("registry.test/a"), nil)
	if err == nil || !strings.Contains(hintOf(err), "docker login registry.test") {
		t.Errorf("got %v, hint %q", err, hintOf(err))
	}
	f2 := newFake(t)
	pulls(f2, `{"status":"Downloading"`)
	if _, _, err := do(t, f2.client(), pullOp("nginx"), nil); err == nil {
		t.Error("a pull whose answer breaks off succeeds")
	}
}

func TestPortConflictNamesTheContainer(t *testing.T) {
	f := newFake(t)
	f.reply("POST /containers/x/start", 500, "driver failed programming external connectivity on endpoint app-web-1: Bind for 0.0.0.0:8080 failed: port is already allocated")
	f.reply("GET /containers/x/json", 200, container.InspectResponse{ID: "x", HostConfig: &container.HostConfig{}})
	f.reply("GET /containers/json", 200, []container.Summary{
		{ID: "y", Names: []string{"/b-web-1"}, Labels: labels("b", "web"), State: "running", Ports: []container.PortSummary{{PublicPort: 8080, PrivatePort: 80, Type: "tcp"}}},
	})
	_, _, err := do(t, f.client(), compose.Op{Kind: compose.OpStartContainer, Ref: onX}, nil)
	e, ok := errors.AsType[*PortError](err)
	if !ok || e.Error() != `port 8080/tcp of the host is already in use by container "b-web-1" of project "b"` {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(e.Hint(), "dev -p b stop web") {
		t.Errorf("hint %q", e.Hint())
	}
}

func TestPortRangesAreTriedAgain(t *testing.T) {
	f := newFake(t)
	var starts atomic.Int32
	f.on("POST /containers/x/start", func(w http.ResponseWriter, _ *http.Request) {
		if starts.Add(1) == 1 {
			answer(w, 500, "Bind for 0.0.0.0:8001 failed: port is already allocated")
			return
		}
		w.WriteHeader(204)
	})
	f.reply("GET /containers/x/json", 200, container.InspectResponse{ID: "x", HostConfig: &container.HostConfig{
		PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8000-8010"}}},
	}})
	if _, _, err := do(t, f.client(), compose.Op{Kind: compose.OpStartContainer, Ref: onX}, nil); err != nil {
		t.Error(err)
	}
}

// The engine reserves a name before the container can be seen. A run that was killed may have sent such a create just before.
func TestCreateContainerWhoseNameIsBeingTaken(t *testing.T) {
	f := newFake(t)
	f.reply("POST /containers/create", 409, `Conflict. The container name "/app-web-1" is already in use by container "y".`)
	op := createOp("sha256:1")
	looks := 0
	f.on("GET /containers/app-web-1/json", func(w http.ResponseWriter, _ *http.Request) {
		if looks++; looks < 3 {
			answer(w, 404, "No such container: app-web-1")
			return
		}
		answer(w, 200, container.InspectResponse{ID: "y", Name: "/app-web-1", Config: op.Container.Config})
	})
	if r, _, err := do(t, f.client(), op, nil); err != nil || r.ID != "y" {
		t.Errorf("got %+v, %v", r, err)
	}
}
