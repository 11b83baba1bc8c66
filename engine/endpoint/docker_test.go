// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/docker/cli/cli/context/store"
)

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCurrentContext(t *testing.T) {
	for content, want := range map[string]string{
		"":                              "error",
		"{}":                            "",
		`{"currentContext":"remote"}`:   "remote",
		`{"currentContext":`:            "error",
		`{"auths":{},"credsStore":"x"}`: "",
	} {
		d := Docker{Dir: t.TempDir()}
		write(t, filepath.Join(d.Dir, "config.json"), content)
		got, err := d.CurrentContext()
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("CurrentContext of %q = %q (%v), want %q", content, got, err, want)
		}
	}
	if got, err := (Docker{Dir: t.TempDir()}).CurrentContext(); got != "" || err != nil {
		t.Errorf("CurrentContext without a file = %q, %v", got, err)
	}
}

// TestContextOnDisk reads a context as the docker CLI lays it out.
func TestContextOnDisk(t *testing.T) {
	d := Docker{Dir: t.TempDir()}
	sum := sha256.Sum256([]byte("remote"))
	id := hex.EncodeToString(sum[:])
	write(t, filepath.Join(d.Dir, "contexts/meta", id, "meta.json"),
		`{"Name":"remote","Metadata":{"Description":"d"},"Endpoints":{"docker":{"Host":"tcp://10.0.0.1:2376","SkipTLSVerify":true}}}`)
	e, err := d.Context("remote")
	if err != nil {
		t.Fatal(err)
	}
	if e.Host != "tcp://10.0.0.1:2376" || e.TLS == nil || !e.TLS.InsecureSkipVerify {
		t.Errorf("context = %+v", e)
	}
	write(t, filepath.Join(d.Dir, "contexts/tls", id, "docker/ca.pem"), "no certificate")
	if _, err := d.Context("remote"); err == nil || !strings.Contains(err.Error(), "ca.pem") {
		t.Errorf("a broken ca.pem gives %v", err)
	}
	var missing *ContextError
	if _, err := d.Context("gone"); !errors.As(err, &missing) || missing.Name != "gone" {
		t.Errorf("a missing context gives %v", err)
	}
}

func TestWriteContext(t *testing.T) {
	d := Docker{Dir: t.TempDir()}
	if removed, err := d.RemoveContext(ownHost); removed || err != nil {
		t.Errorf("removing what is not there = %v, %v", removed, err)
	}
	for i, want := range []bool{true, false} {
		if created, err := d.WriteContext(ownHost); created != want || err != nil {
			t.Errorf("write %d = %v, %v; want %v", i, created, err, want)
		}
	}
	e, err := d.Context(ContextName)
	if err != nil || e.Host != ownHost || e.TLS != nil {
		t.Errorf("context = %+v, %v", e, err)
	}
	sum := sha256.Sum256([]byte(ContextName))
	data, err := os.ReadFile(filepath.Join(d.Dir, "contexts/meta", hex.EncodeToString(sum[:]), "meta.json"))
	if err != nil || !strings.Contains(string(data), `"Host":"`+ownHost+`"`) {
		t.Errorf("file = %s, %v", data, err)
	}
	if removed, err := d.RemoveContext(ownHost); !removed || err != nil {
		t.Errorf("remove = %v, %v", removed, err)
	}
	if _, err := d.Context(ContextName); err == nil {
		t.Error("the context is still there")
	}
}

func TestNamedContextsAreApart(t *testing.T) {
	d := Docker{Dir: t.TempDir()}
	if list, err := d.Contexts(); err != nil || len(list) != 0 {
		t.Errorf("list without a folder = %+v, %v", list, err)
	}
	for name, host := range map[string]string{"dev-a": "unix:///a.sock", "dev-b": "npipe:////./pipe/b"} {
		if created, err := d.WriteContextNamed(name, "a machine", host); !created || err != nil {
			t.Fatalf("%s: %v, %v", name, created, err)
		}
	}
	if list, err := d.Contexts(); err != nil || len(list) != 2 {
		t.Errorf("list = %+v, %v", list, err)
	}
	if removed, err := d.RemoveContextNamed("dev-a", "unix:///a.sock"); !removed || err != nil {
		t.Errorf("remove = %v, %v", removed, err)
	}
	if removed, err := d.RemoveContextNamed("dev-b", "unix:///a.sock"); removed || err != nil {
		t.Errorf("remove what leads elsewhere = %v, %v", removed, err)
	}
	if e, err := d.Context("dev-b"); err != nil || e.Host != "npipe:////./pipe/b" {
		t.Errorf("the other context is %+v, %v", e, err)
	}
}

func TestLocalHost(t *testing.T) {
	for path, want := range map[string]string{"/m/docker.sock": "unix:///m/docker.sock", `\\.\pipe\dev-x`: "npipe:////./pipe/dev-x"} {
		if got := LocalHost(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestForeignContext: a context of our name that leads elsewhere is the user's.
func TestForeignContext(t *testing.T) {
	d := Docker{Dir: t.TempDir()}
	err := d.store().CreateOrUpdate(store.Metadata{Name: ContextName, Metadata: contextMeta{},
		Endpoints: map[string]any{dockerEndpoint: contextEndpoint{Host: "ssh://me@box"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteContext(ownHost); !errors.Is(err, ErrForeignContext) {
		t.Errorf("write over a foreign context = %v", err)
	}
	if removed, err := d.RemoveContext(ownHost); removed || err != nil {
		t.Errorf("remove a foreign context = %v, %v", removed, err)
	}
	if e, err := d.Context(ContextName); err != nil || e.Host != "ssh://me@box" {
		t.Errorf("the foreign context is now %+v, %v", e, err)
	}
}

func TestAnswers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs unix sockets in a temporary folder")
	}
	dir, err := os.MkdirTemp("", "a") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	serve := func(name string, h http.HandlerFunc) string {
		path := filepath.Join(dir, name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close(); <-done })
		return "unix://" + path
	}
	docker := serve("docker", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			w.Header().Set("Api-Version", "1.56")
		}
	})
	other := serve("other", func(http.ResponseWriter, *http.Request) {})
	dead := filepath.Join(dir, "dead")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	for host, want := range map[string]string{
		docker:                               "",
		other:                                "what answers there is not a Docker Engine",
		"unix://" + dead:                     "nobody listens at the socket",
		"unix://" + filepath.Join(dir, "no"): "there is no socket",
		"tcp://127.0.0.1:1":                  "not a unix socket",
	} {
		err := Docker{}.Answers(context.Background(), host)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Answers(%s) = %v, want %q", host, err, want)
		}
	}
}
