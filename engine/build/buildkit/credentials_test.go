// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/session/auth/authprovider"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// brokenHelper is a backend whose credential helper is missing; the configuration has something all the same.
type brokenHelper struct{ asked []string }

func (b *brokenHelper) DialHijack(context.Context, string, string, map[string][]string) (net.Conn, error) {
	return nil, errors.New("not connected")
}

func (b *brokenHelper) RegistryAuth(host string) (engine.Credentials, error) {
	b.asked = append(b.asked, host)
	return engine.Credentials{Username: "me"}, errors.New("credential helper is not installed")
}

func TestCredentialsWithAMissingHelper(t *testing.T) {
	b := &brokenHelper{}
	c := &credentials{backend: b}
	for _, host := range []string{authprovider.DockerHubRegistryHost, "r.test:5000"} {
		got, err := c.get(t.Context(), host, nil, nil)
		if err != nil || got.Username != "me" {
			t.Errorf("%s: got %+v, %v", host, got, err)
		}
	}
	if strings.Join(b.asked, " ") != "docker.io r.test:5000" {
		t.Errorf("asked for %q", b.asked)
	}
	if w := c.warnings(); len(w) != 1 {
		t.Errorf("warnings %q", w)
	}
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
	e := &Error{Service: "web", Err: errors.New("failed to solve: rpc error: code = Unknown desc = process did not complete"), warnings: []string{"no helper"}}
	if e.Error() != `build of service "web" failed: process did not complete` || e.Hint() != "no helper" {
		t.Errorf("got %v, hint %q", e, e.Hint())
	}
}
