// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/enginetest"
)

// testRegistry is a real registry in this process. With a user, it lets nobody else in.
type testRegistry struct {
	host    string
	user    string
	denials atomic.Int32
}

func newRegistry(t *testing.T, user string) *testRegistry {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cfg := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory": nil, "maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	cfg.HTTP.Secret = "test"
	app := handlers.NewApp(ctx, cfg)
	t.Cleanup(func() { _ = app.Shutdown() })
	r := &testRegistry{user: user}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if name, password, _ := req.BasicAuth(); user != "" && (name != user || password != "geheim") {
			r.denials.Add(1)
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}`)
			return
		}
		app.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	r.host = s.Listener.Addr().String()
	return r
}

// push puts the busybox image there as name, and removes it from the engine.
func (r *testRegistry) push(t *testing.T, api *client.Client, name string) string {
	t.Helper()
	ref := r.host + "/" + name
	if _, err := api.ImageTag(t.Context(), client.ImageTagOptions{Source: busybox, Target: ref}); err != nil {
		t.Fatal(err)
	}
	auth, err := authconfig.Encode(Credentials{Username: r.user, Password: "geheim"})
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := api.ImagePush(t.Context(), ref, client.ImagePushOptions{RegistryAuth: auth})
	if err == nil {
		err = pushed.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.ImageRemove(t.Context(), ref, client.ImageRemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestRealPull(t *testing.T) {
	r := newReal(t)
	api := enginetest.Start(t).Client(t)
	open := newRegistry(t, "")
	ref := open.push(t, api, "team/tool:1")
	var layers []string
	res, err := r.Do(r.ctx, compose.Op{Kind: compose.OpPullImage, Image: &compose.ImageSpec{Ref: ref}}, nil, compose.SinkFunc(func(e compose.Event) {
		if e.Part != "" {
			layers = append(layers, e.Part+" "+e.Text)
		}
	}))
	if err != nil || len(layers) == 0 {
		t.Fatalf("got %v, layers %q", err, layers)
	}
	snap, err := r.Observe(r.ctx, compose.Query{Images: []string{ref}, Tagged: []string{ref}, SkipNetworks: true, SkipVolumes: true})
	if img := snap.Images[ref]; err != nil || img.ID != res.ID || img.Tagged.IsZero() || len(img.Digests) == 0 {
		t.Fatalf("got %+v, %v; pulled %q", snap.Images, err, res.ID)
	}

	// What was pulled by its tag is found by its digest, and the other way round.
	digested := open.host + "/team/tool@" + snap.Images[ref].Digests[0][strings.Index(snap.Images[ref].Digests[0], "@")+1:]
	byDigest, err := r.Observe(r.ctx, compose.Query{Images: []string{digested}, SkipNetworks: true, SkipVolumes: true})
	if err != nil || byDigest.Images[digested].ID != res.ID {
		t.Errorf("by digest %s: %+v, %v", digested, byDigest.Images, err)
	}
	r.apply(compose.Op{Kind: compose.OpRemoveImage, Image: &compose.ImageSpec{Ref: ref}})
	r.apply(compose.Op{Kind: compose.OpRemoveImage, Image: &compose.ImageSpec{Ref: ref}})
	again := r.apply(compose.Op{Kind: compose.OpPullImage, Image: &compose.ImageSpec{Ref: digested}})
	byDigest, err = r.Observe(r.ctx, compose.Query{Images: []string{digested}, SkipNetworks: true, SkipVolumes: true})
	if err != nil || byDigest.Images[digested].ID != again.ID {
		t.Errorf("pulled by digest: %+v, %v", byDigest.Images, err)
	}

	for _, missing := range []string{"team/tool:nope", "team/nope:1"} {
		_, err := r.Do(r.ctx, compose.Op{Kind: compose.OpPullImage, Image: &compose.ImageSpec{Ref: open.host + "/" + missing}}, nil, compose.Discard)
		if err == nil || hintOf(err) == "" {
			t.Errorf("%s: got %v, hint %q", missing, err, hintOf(err))
		}
	}
}

func TestRealPullWithCredentials(t *testing.T) {
	r := newReal(t)
	e := enginetest.Start(t)
	private := newRegistry(t, "me")
	ref := private.push(t, e.Client(t), "secret:1")
	pull := func(config string) ([]string, error) {
		c := openClient(t, Options{Host: e.Host, ConfigDir: dockerConfig(t, config)})
		var warnings []string
		_, err := c.Do(r.ctx, compose.Op{Kind: compose.OpPullImage, Image: &compose.ImageSpec{Ref: ref}}, nil, compose.SinkFunc(func(e compose.Event) {
			if e.Kind == compose.EventWarning {
				warnings = append(warnings, e.Text)
			}
		}))
		return warnings, err
	}
	good := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, private.host, basic("me", "geheim"))
	if warnings, err := pull(good); err != nil || len(warnings) > 0 {
		t.Errorf("with credentials: %v, %q", err, warnings)
	}
	if _, err := pull(`{}`); err == nil || !strings.Contains(hintOf(err), "docker login "+private.host) {
		t.Errorf("without credentials: %v, hint %q", err, hintOf(err))
	}
	if _, err := exec.LookPath("docker-credential-lost"); err == nil {
		t.Skip("somebody has a docker-credential-lost")
	}
	warnings, err := pull(`{"credsStore": "lost"}`)
	if err == nil || len(warnings) != 1 || !strings.Contains(warnings[0], "docker-credential-lost") {
		t.Errorf("without its helper: %v, %q", err, warnings)
	}
	// Credentials that stand in the file beside the missing helper still serve.
	if warnings, err := pull(strings.TrimSuffix(good, "}") + `, "credsStore": "lost"}`); err != nil || len(warnings) != 1 {
		t.Errorf("credentials beside a missing helper: %v, %q", err, warnings)
	}
}
