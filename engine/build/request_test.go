// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/build/wire"
)

// text renders what a request asks of BuildKit, one line a fact; dir stands for the test's folder and keys of folders are left out.
func requestText(r *wire.Request, dir string) string {
	var b strings.Builder
	fmt.Fprintln(&b, "frontend", r.Frontend)
	for _, k := range slices.Sorted(maps.Keys(r.Attrs)) {
		if !strings.HasPrefix(k, "sharedkey:") {
			fmt.Fprintf(&b, "attr %s=%s\n", k, r.Attrs[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(r.Folders)) {
		fmt.Fprintf(&b, "folder %s=%s\n", k, filepath.ToSlash(r.Folders[k]))
	}
	for _, e := range r.CacheFrom {
		fmt.Fprintf(&b, "cache from %s %v\n", e.Type, e.Attrs)
	}
	for _, e := range r.CacheTo {
		fmt.Fprintf(&b, "cache to %s %v\n", e.Type, e.Attrs)
	}
	for _, e := range r.Entitlements {
		fmt.Fprintln(&b, "entitlement", e)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Export)) {
		fmt.Fprintf(&b, "export %s=%s\n", k, r.Export[k])
	}
	return strings.ReplaceAll(b.String(), filepath.ToSlash(dir), "DIR")
}

func ptr(s string) *string { return &s }

func TestRequest(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"app/Dockerfile", "app/docker/prod.Dockerfile", "assets/logo"} {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	app := filepath.Join(dir, "app")
	tests := []struct {
		name string
		spec compose.BuildSpec
		want string
	}{
		{"plain", compose.BuildSpec{Tags: []string{"p-web"}, Config: types.BuildConfig{Context: app}}, `
frontend dockerfile.v0
attr filename=Dockerfile
attr image-resolve-mode=local
folder context=DIR/app
folder dockerfile=DIR/app
export name=p-web
`},
		{"everything", compose.BuildSpec{
			Tags: []string{"p-web", "p-web:1"}, NoCache: true, Pull: true, Push: true, Platforms: []string{"linux/amd64", "linux/arm64"},
			Config: types.BuildConfig{
				Context: app, Dockerfile: "docker/prod.Dockerfile", Target: "final", Network: "host", Privileged: true, ShmSize: 1 << 20,
				Entitlements: []string{"network.host"}, NoCacheFilter: types.StringList{"a"},
				Args:   types.MappingWithEquals{"A": ptr("1"), "UNSET": nil, "BUILDKIT_INLINE_CACHE": ptr("1")},
				Labels: types.Labels{"l": "v"}, Provenance: "mode=max", SBOM: "false",
				CacheFrom:  types.StringList{"reg/app:cache", "type=local,src=/c"},
				CacheTo:    types.StringList{"type=local,dest=/c"},
				ExtraHosts: types.HostsList{"db": {"10.0.0.2"}, "a": {"::1"}},
				Ulimits:    map[string]*types.UlimitsConfig{"nofile": {Soft: 1, Hard: 2}, "core": {Single: 3}},
				AdditionalContexts: types.Mapping{
					"assets": filepath.Join(dir, "assets"), "context": filepath.Join(dir, "assets"), "base": "docker-image://debian", "lib": "https://h/l.git",
				},
			},
		}, `
frontend dockerfile.v0
attr add-hosts=a=::1,db=10.0.0.2
attr attest:provenance=mode=max
attr build-arg:A=1
attr build-arg:BUILDKIT_INLINE_CACHE=1
attr context:assets=local:assets
attr context:base=docker-image://debian
attr context:context=local:_context
attr context:lib=https://h/l.git
attr filename=prod.Dockerfile
attr force-network-mode=host
attr frontend.caps=moby.buildkit.frontend.contexts+forward
attr image-resolve-mode=pull
attr label:l=v
attr no-cache=
attr platform=linux/amd64,linux/arm64
attr shm-size=1048576
attr target=final
attr ulimit=core=3:3,nofile=1:2
folder _context=DIR/assets
folder assets=DIR/assets
folder context=DIR/app
folder dockerfile=DIR/app/docker
cache from registry map[ref:reg/app:cache]
cache from local map[src:/c]
cache to local map[dest:/c]
cache to inline map[]
entitlement network.host
entitlement security.insecure
export name=p-web,p-web:1
export push=true
`},
		{"inline", compose.BuildSpec{Tags: []string{"i"}, Config: types.BuildConfig{Context: app, DockerfileInline: "FROM scratch"}}, `
frontend dockerfile.v0
attr dockerfilekey=dockerfile
attr filename=Dockerfile
attr image-resolve-mode=local
folder context=DIR/app
export name=i
`},
		{"git", compose.BuildSpec{Tags: []string{"i"}, Config: types.BuildConfig{Context: "https://host/x.git#main:sub", Dockerfile: "d/Dockerfile"}}, `
frontend dockerfile.v0
attr context=https://host/x.git#main:sub
attr filename=d/Dockerfile
attr image-resolve-mode=local
export name=i
`},
		{"git with a Dockerfile from here", compose.BuildSpec{Tags: []string{"i"}, Config: types.BuildConfig{Context: "git@host:x.git", Dockerfile: filepath.Join(app, "Dockerfile")}}, `
frontend dockerfile.v0
attr context=git@host:x.git
attr dockerfilekey=dockerfile
attr filename=Dockerfile
attr image-resolve-mode=local
folder dockerfile=DIR/app
export name=i
`},
		{"syntax", compose.BuildSpec{Tags: []string{"i"}, Config: types.BuildConfig{Context: app, Args: types.MappingWithEquals{"BUILDKIT_SYNTAX": ptr("my/frontend:1 x")}}}, `
frontend gateway.v0
attr build-arg:BUILDKIT_SYNTAX=my/frontend:1 x
attr cmdline=my/frontend:1 x
attr filename=Dockerfile
attr image-resolve-mode=local
attr source=my/frontend:1
folder context=DIR/app
folder dockerfile=DIR/app
export name=i
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := newRequest(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := requestText(r, dir), strings.TrimPrefix(tt.want, "\n"); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestRequestHostGateway(t *testing.T) {
	r := request{&wire.Request{Attrs: map[string]string{}}}
	r.setHosts(types.HostsList{"x": {"1.2.3.4"}})
	if r.HostGateway != "" {
		t.Error("host-gateway is asked for and nobody wants it")
	}
	r.setHosts(types.HostsList{"host.docker.internal": {hostGateway}, "x": {"1.2.3.4"}})
	if got, want := r.Attrs["add-hosts"], "host.docker.internal=host-gateway,x=1.2.3.4"; got != want || r.HostGateway != hostGateway {
		t.Errorf("add-hosts = %q, want %q; host gateway %q", got, want, r.HostGateway)
	}
}

func TestRequestSecretsAndAgents(t *testing.T) {
	spec := compose.BuildSpec{Service: "web", Config: types.BuildConfig{Context: t.TempDir(), DockerfileInline: "FROM scratch", SSH: types.SSHConfig{{ID: "default"}, {ID: "k", Path: "/k"}}},
		Secrets: map[string]types.SecretConfig{"a": {Content: "x"}, "b": {File: "/b"}}}
	r, err := newRequest(spec)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Agents, []wire.Agent{{ID: "default"}, {ID: "k", Path: "/k"}}) {
		t.Errorf("agents: %+v", r.Agents)
	}
	if string(r.Secrets["a"].Content) != "x" || r.Secrets["b"].File != "/b" {
		t.Errorf("secrets: %+v", r.Secrets)
	}
	if r.Version != wire.Version || r.Service != "web" {
		t.Errorf("version %d, service %q", r.Version, r.Service)
	}
}

func TestRequestMissing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		config types.BuildConfig
		want   string
	}{
		{types.BuildConfig{Context: filepath.Join(dir, "none")}, `build of service "web": context "` + filepath.Join(dir, "none") + `" not found`},
		{types.BuildConfig{Context: filepath.Join(dir, "file")}, `build of service "web": context "` + filepath.Join(dir, "file") + `" not found`},
		{types.BuildConfig{Context: dir}, `build of service "web": dockerfile "` + filepath.Join(dir, "Dockerfile") + `" not found`},
		{types.BuildConfig{Context: dir, DockerfileInline: "FROM scratch", AdditionalContexts: types.Mapping{"a": filepath.Join(dir, "no")}},
			`build of service "web": additional context "a" "` + filepath.Join(dir, "no") + `" not found`},
	}
	for _, tt := range tests {
		_, err := newRequest(compose.BuildSpec{Service: "web", Config: tt.config})
		var missing *MissingError
		if !errors.As(err, &missing) || err.Error() != tt.want || missing.Hint() == "" {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestCacheEntryErrors(t *testing.T) {
	for text, want := range map[string]string{
		"ref=x":            `"ref=x": has no type (type=registry, type=local, …)`,
		"type=local,where": `"type=local,where": "where" is not of the form key=value`,
		"":                 `"": EOF`,
	} {
		if _, err := newCacheEntry(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func FuzzCacheEntry(f *testing.F) {
	f.Add("type=registry,ref=a/b:c")
	f.Add("a/b")
	f.Add(`type=local,"src=a,b"`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := newCacheEntry(text)
		if err == nil && e.Type == "" {
			t.Errorf("%q: no type and no error", text)
		}
	})
}

func TestDockerfileInLowerCase(t *testing.T) {
	dir := t.TempDir()
	spec := compose.BuildSpec{Service: "web", Config: types.BuildConfig{Context: dir}}
	if _, err := newRequest(spec); err == nil {
		t.Error("a folder without a Dockerfile is built")
	}
	if err := os.WriteFile(filepath.Join(dir, "dockerfile"), []byte("FROM scratch"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := newRequest(spec)
	if err != nil || r.Attrs["filename"] != "dockerfile" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestErrorLeavesTheTransportOut(t *testing.T) {
	e := newError("web", &wire.Failure{
		Text: "failed to solve: rpc error: code = Unknown desc = process did not complete", Source: "Dockerfile:2\n", Warnings: []string{"no helper"},
	})
	if e.Error() != "build of service \"web\" failed: process did not complete\nDockerfile:2" || e.Hint() != "no helper" {
		t.Errorf("got %v, hint %q", e, e.Hint())
	}
}
