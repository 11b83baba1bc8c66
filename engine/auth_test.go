// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/authconfig"

	"github.com/seed71221737/dev/compose"
)

// dockerConfig writes a docker configuration and returns its folder.
func dockerConfig(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func TestRegistryAuth(t *testing.T) {
	dir := dockerConfig(t, `{"auths": {"https://index.docker.io/v1/": {"auth": "`+basic("hub", "h")+`"}, "r.test:5000": {"auth": "`+basic("me", "geheim")+`"}}}`)
	for name, o := range map[string]Options{
		"option":      {ConfigDir: dir},
		"environment": {Environ: []string{"DOCKER_CONFIG=/nowhere", "DOCKER_CONFIG=" + dir}},
	} {
		o.Host = "unix:///nowhere"
		c := openClient(t, o)
		for host, want := range map[string]string{"docker.io": "hub", "r.test:5000": "me", "other.test": ""} {
			got, err := c.RegistryAuth(host)
			if err != nil || got.Username != want {
				t.Errorf("%s: %s: got %+v, %v", name, host, got, err)
			}
		}
	}
}

func TestPullSendsCredentials(t *testing.T) {
	f := newFake(t)
	auth := pulls(f, `{"status":"done"}`)
	c := openClient(t, Options{Host: f.host, ConfigDir: dockerConfig(t, `{"auths": {"r.test": {"auth": "`+basic("me", "geheim")+`"}}}`)})
	if _, _, err := do(t, c, pullOp("r.test/a:1"), nil); err != nil {
		t.Fatal(err)
	}
	got, err := authconfig.Decode(*auth)
	if err != nil || got.Username != "me" || got.Password != "geheim" {
		t.Errorf("sent %+v, %v", got, err)
	}
}

func TestMissingCredentialHelperIsNamedOnce(t *testing.T) {
	f := newFake(t)
	pulls(f, `{"status":"done"}`)
	c := openClient(t, Options{Host: f.host, ConfigDir: dockerConfig(t, `{"credsStore": "gone-with-the-wind"}`)})
	var warnings []string
	for range 2 {
		_, events, err := do(t, c, pullOp("r.test/a:1"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind == compose.EventWarning {
				warnings = append(warnings, e.Text)
			}
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], `"docker-credential-gone-with-the-wind"`) {
		t.Errorf("warnings %q", warnings)
	}
}

func TestBrokenDockerConfigIsNoReasonToStop(t *testing.T) {
	f := newFake(t)
	pulls(f, `{"status":"done"}`)
	c := openClient(t, Options{Host: f.host, ConfigDir: dockerConfig(t, `{"auths": `)})
	_, events, err := do(t, c, pullOp("r.test/a:1"), nil)
	if err != nil || len(events) == 0 || events[0].Kind != compose.EventWarning || !strings.Contains(events[0].Text, "config.json") {
		t.Errorf("got %+v, %v", events, err)
	}
}

func TestCredentialHelper(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\nread host\necho called >> " + bin + "/calls\necho '{\"Username\":\"helped\",\"Secret\":\"s\"}'\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-mine"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	c := openClient(t, Options{Host: "unix:///nowhere", ConfigDir: dockerConfig(t, `{"credHelpers": {"r.test": "mine"}}`)})
	for range 3 {
		got, err := c.RegistryAuth("r.test")
		if err != nil || got.Username != "helped" || got.Password != "s" {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	if calls, _ := os.ReadFile(filepath.Join(bin, "calls")); string(calls) != "called\n" {
		t.Errorf("the helper was asked %q", calls)
	}
}
