// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"
	"go.uber.org/goleak"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build"
	"github.com/seed71221737/dev/engine/build/buildkit"
	"github.com/seed71221737/dev/engine/enginetest"
	"github.com/seed71221737/dev/internal/program"
)

const base = "busybox:build-test"

// TestMain lets the builder start this test binary as its build program.
func TestMain(m *testing.M) {
	if os.Getenv("BUILD_TEST_PROGRAM") != "" {
		os.Exit(buildkit.Main())
	}
	enginetest.Isolate()
	os.Exit(m.Run())
}

// open gives the engine of this test binary through both clients: ours, which builds, and the plain one to look with.
func open(t *testing.T) (*engine.Client, *client.Client) {
	t.Helper()
	e := enginetest.Start(t)
	api := e.Client(t)
	enginetest.BusyboxImage(t, api, base)
	c, err := engine.Open(engine.Options{Host: e.Host, NewBuilder: build.New(thisBinary(t))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, api
}

// thisBinary is this test binary as the build program.
func thisBinary(t *testing.T) program.Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program.Options{Environ: append(os.Environ(), "BUILD_TEST_PROGRAM=1", "DEV_BUILD_PROGRAM="+exe)}
}

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func do(t *testing.T, c *engine.Client, spec compose.BuildSpec) (compose.Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return c.Do(ctx, compose.Op{ID: 1, Kind: compose.OpBuildImage, Service: spec.Service, Build: &spec}, nil, compose.Discard)
}

func TestBuild(t *testing.T) {
	c, api := open(t)
	app := folder(t, map[string]string{
		"Dockerfile": `
FROM ` + base + ` AS one
ARG WHO=nobody
COPY kept.txt ./
RUN echo "hello $WHO" > /who && test ! -e ignored.txt
FROM one AS two
LABEL stage=two
`,
		"kept.txt": "kept", "ignored.txt": "ignored", ".dockerignore": "ignored.txt\n",
	})
	assets := folder(t, map[string]string{"logo": "a logo"})
	who, secret := "you", "s3cret"
	tests := []struct {
		name   string
		config types.BuildConfig
		secret string
		labels map[string]string
	}{
		{"target, args and labels", types.BuildConfig{Context: app, Target: "two", Args: types.MappingWithEquals{"WHO": &who}, Labels: types.Labels{"mine": "1"}}, "",
			map[string]string{"stage": "two", "mine": "1"}},
		{"inline with a folder and an image as contexts", types.BuildConfig{
			Context: app, AdditionalContexts: types.Mapping{"assets": assets, "bb": "docker-image://" + base},
			DockerfileInline: "FROM bb\nCOPY --from=assets logo /logo\nRUN grep -q logo /logo\nLABEL inline=yes\n",
		}, "", map[string]string{"inline": "yes"}},
		{"secret", types.BuildConfig{
			Context:          app,
			DockerfileInline: "FROM " + base + "\nRUN --mount=type=secret,id=token grep -qx s3cret /run/secrets/token\nLABEL ok=1\n",
		}, secret, map[string]string{"ok": "1"}},
		{"extra hosts, host gateway and network none", types.BuildConfig{
			Context: app, ExtraHosts: types.HostsList{"db.test": {"10.9.8.7"}, "host.docker.internal": {"host-gateway"}}, Network: "none",
			DockerfileInline: "FROM " + base + "\nRUN grep -q '10.9.8.7.*db.test' /etc/hosts && grep host.docker.internal /etc/hosts\nLABEL hosts=1\n",
		}, "", map[string]string{"hosts": "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tag := "build-test-" + strings.ReplaceAll(strings.ReplaceAll(tt.name, " ", "-"), ",", "")
			spec := compose.BuildSpec{Service: "web", Config: tt.config, Tags: []string{tag, tag + ":second"}}
			if tt.secret != "" {
				spec.Secrets = map[string]types.SecretConfig{"token": {Content: tt.secret}}
			}
			r, err := do(t, c, spec)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range spec.Tags {
				image, err := api.ImageInspect(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if image.ID != r.ID {
					t.Errorf("%s has ID %s, the result says %s", name, image.ID, r.ID)
				}
				for k, v := range tt.labels {
					if image.Config.Labels[k] != v {
						t.Errorf("label %s = %q, want %q", k, image.Config.Labels[k], v)
					}
				}
			}
		})
	}
}

// Nothing changed means the same image: otherwise each `up --build` would recreate everything.
func TestBuildTwiceIsTheSameImage(t *testing.T) {
	c, _ := open(t)
	spec := compose.BuildSpec{Service: "web", Tags: []string{"build-test-twice"}, Config: types.BuildConfig{
		Context: folder(t, map[string]string{"Dockerfile": "FROM " + base + "\nCOPY . /src\nRUN date +%N > /stamp\n"}),
	}}
	first, err := do(t, c, spec)
	if err != nil {
		t.Fatal(err)
	}
	second, err := do(t, c, spec)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != second.ID {
		t.Errorf("built twice: %s, then %s", first.ID, second.ID)
	}
	spec.NoCache = true
	third, err := do(t, c, spec)
	if err != nil {
		t.Fatal(err)
	}
	if third.ID == first.ID {
		t.Errorf("built without cache: the same image %s", third.ID)
	}
}

func TestBuildFailureShowsTheLine(t *testing.T) {
	c, _ := open(t)
	_, err := do(t, c, compose.BuildSpec{Service: "web", Tags: []string{"build-test-fails"}, Config: types.BuildConfig{
		Context: t.TempDir(), DockerfileInline: "FROM " + base + "\nRUN exit 3\n",
	}})
	var failed *build.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a build error", err)
	}
	for _, want := range []string{`build of service "web" failed`, "exit code: 3", "Dockerfile:2", ">>> RUN exit 3"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%s", want, err)
		}
	}
}

func TestBuildsSideBySide(t *testing.T) {
	c, _ := open(t)
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			_, err := do(t, c, compose.BuildSpec{Service: name, Tags: []string{"build-test-side-" + name}, Config: types.BuildConfig{
				Context: t.TempDir(), DockerfileInline: "FROM " + base + "\nRUN echo " + name + " > /name\n",
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestBuildCancel(t *testing.T) {
	c, _ := open(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	spec := compose.BuildSpec{Service: "web", Tags: []string{"build-test-cancel"}, Config: types.BuildConfig{
		Context: t.TempDir(), DockerfileInline: "FROM " + base + "\nRUN sleep 1000\n",
	}}
	running := compose.SinkFunc(func(e compose.Event) {
		if s, ok := e.Detail.(*build.Status); ok {
			for _, v := range s.Steps {
				if strings.Contains(v.Name, "sleep 1000") && v.Started != nil {
					cancel()
				}
			}
		}
	})
	_, err := c.Do(ctx, compose.Op{ID: 1, Kind: compose.OpBuildImage, Service: "web", Build: &spec}, nil, running)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
	_ = c.Close()
}
