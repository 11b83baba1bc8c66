// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // the registry's storage in tests
)

// fakeImage makes a small image that verifies, in a workspace of the store.
func fakeImage(t *testing.T, s *Store, arch, salt string) string {
	t.Helper()
	dir, err := s.Workspace()
	if err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Schema: ManifestSchema, Name: "dev", Arch: arch, Time: time.Unix(1e9, 0).UTC(), RootUUID: "00000000-0000-8000-8000-000000000000"}
	for _, name := range imageFiles {
		content := []byte(name + arch + salt)
		if name == RootName { // large enough to be cut off on its way
			content = []byte(strings.Repeat(name+arch+salt, 3))
			for i := range 400_000 {
				content = strconv.AppendInt(content, int64(i*i), 36)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := describeFile(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		m.Files = append(m.Files, f)
	}
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ManifestName), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func addImage(t *testing.T, s *Store, arch, salt, tag string) Image {
	t.Helper()
	i, err := s.Add(context.Background(), fakeImage(t, s, arch, salt), tag)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestStore(t *testing.T) {
	ctx := context.Background()
	s := &Store{Dir: t.TempDir()}
	used := addImage(t, s, "amd64", "1", "stable")
	other := addImage(t, s, "arm64", "1", "stable")
	old := addImage(t, s, "amd64", "0", "")
	if again := addImage(t, s, "amd64", "1", "stable"); again.Digest != used.Digest {
		t.Error("adding the same image again made another")
	}
	if list, err := s.List(); err != nil || len(list) != 3 {
		t.Fatalf("list: %v, %v", list, err)
	}
	if got, err := s.Find("stable", "arm64"); err != nil || got.Digest != other.Digest {
		t.Errorf("find by tag: %+v, %v", got, err)
	}
	if got, err := s.Find("sha256:"+used.Digest[:10], ""); err != nil || got.Digest != used.Digest {
		t.Errorf("find by digest: %+v, %v", got, err)
	}
	if _, err := s.Find("stable", ""); err == nil {
		t.Error("a tag of two images named one")
	}
	var missing *NotFoundError
	if _, err := s.Find("nothing", ""); !errors.As(err, &missing) {
		t.Errorf("find nothing: %v", err)
	}
	if err := s.Use(ctx, used.Digest, "web"); err != nil {
		t.Fatal(err)
	}
	if err := s.Use(ctx, used.Digest, "../web"); err == nil {
		t.Error("an owner with a path was accepted")
	}
	if removed, err := s.Prune(ctx, PruneOptions{}); err != nil || len(removed) != 1 || removed[0].Digest != old.Digest {
		t.Errorf("prune: %+v, %v", removed, err)
	}
	if removed, err := s.Prune(ctx, PruneOptions{All: true}); err != nil || len(removed) != 1 || removed[0].Digest != other.Digest {
		t.Errorf("prune all but what is in use: %+v, %v", removed, err)
	}
	if err := s.Release(ctx, used.Digest, "web"); err != nil {
		t.Fatal(err)
	}
	if removed, err := s.Prune(ctx, PruneOptions{All: true}); err != nil || len(removed) != 1 {
		t.Errorf("prune all: %+v, %v", removed, err)
	}
}

func TestDamagedImageIsListedAndPruned(t *testing.T) {
	ctx := context.Background()
	s := &Store{Dir: t.TempDir()}
	good, bad := addImage(t, s, "amd64", "1", "a"), addImage(t, s, "amd64", "2", "b")
	kernel := filepath.Join(bad.Dir, KernelName)
	if err := errors.Join(os.Chmod(kernel, 0o644), os.WriteFile(kernel, []byte("evil"), 0o644)); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := Verify(bad.Dir); !errors.As(err, &damaged) || !strings.Contains(err.Error(), KernelName) {
		t.Errorf("verify: %v, want a DamagedError that names the file", err)
	}
	again := addImage(t, s, "amd64", "2", "b")
	if _, err := Verify(again.Dir); err != nil || again.Digest != bad.Digest {
		t.Errorf("a damaged image is not replaced by a sound one: %v", err)
	}
	if err := errors.Join(os.Chmod(kernel, 0o644), os.WriteFile(kernel, []byte("evil"), 0o644)); err != nil {
		t.Fatal(err)
	}
	removed, err := s.Prune(ctx, PruneOptions{Damaged: true})
	if err != nil || len(removed) != 1 || removed[0].Digest != bad.Digest {
		t.Errorf("prune damaged: %+v, %v", removed, err)
	}
	if _, err := s.Add(ctx, func() string {
		dir := fakeImage(t, s, "amd64", "3")
		_ = os.Truncate(filepath.Join(dir, RootName), 10)
		return dir
	}(), ""); !errors.As(err, &damaged) {
		t.Errorf("adding a damaged image: %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.imageDir(good.Digest), ManifestName+"x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("a", ""); err != nil {
		t.Errorf("the good image: %v", err)
	}
}

// startRegistry runs a registry on the loopback; wrap may be nil.
func startRegistry(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": nil}}
	config.Log.Level = "panic"
	config.Log.AccessLog.Disabled = true
	var h http.Handler = handlers.NewApp(context.Background(), config)
	if wrap != nil {
		h = wrap(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestPushAndPull(t *testing.T) {
	ctx := context.Background()
	var cutOff, ranges atomic.Int32
	host := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				ranges.Add(1)
			}
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && cutOff.Load() > 0 {
				w = &cutWriter{ResponseWriter: w, left: 300_000, count: &cutOff}
			}
			h.ServeHTTP(w, r)
		})
	})
	from, to := &Store{Dir: t.TempDir()}, &Store{Dir: t.TempDir()}
	images := []Image{addImage(t, from, "amd64", "1", "x"), addImage(t, from, "arm64", "1", "x")}
	open := func(ref string, s *Store) *Remote {
		r, err := OpenRemote(host+"/team/image"+ref, filepath.Join(s.Dir, "transfers"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	pin, err := open(":v1", from).Push(ctx, images)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := open(":v1", from).Push(ctx, images); err != nil || again != pin {
		t.Errorf("pushing again: %q, %v; want %q", again, err, pin)
	}
	// The first try is cut off; the second goes on where it ended.
	cutOff.Store(1)
	if _, err := open(":v1", to).Pull(ctx, to, "arm64", "v1"); err == nil {
		t.Fatal("a pull that was cut off succeeded")
	}
	got, err := open("@"+pin, to).Pull(ctx, to, "arm64", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != images[1].Digest || ranges.Load() == 0 {
		t.Errorf("pulled %s with %d ranged requests, want %s with some", got.Digest, ranges.Load(), images[1].Digest)
	}
	if found, err := to.Find("v1", "arm64"); err != nil || found.Digest != got.Digest {
		t.Errorf("find what was pulled: %+v, %v", found, err)
	}
	if _, err := open("@sha256:"+strings.Repeat("0", 64), to).Pull(ctx, to, "arm64", ""); err == nil {
		t.Error("a digest that is not there was pulled")
	}
	if _, err := open(":v1", to).Pull(ctx, to, "riscv64", ""); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("an architecture that is not there: %v", err)
	}
}

// cutWriter breaks a response off after so many bytes and sets count to zero.
type cutWriter struct {
	http.ResponseWriter
	left  int
	count *atomic.Int32
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		c.count.Store(0)
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestFetchResumesAndVerifies(t *testing.T) {
	data := bytes.Repeat([]byte("package "), 10_000)
	var ranged atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			_, _ = w.Write(bytes.Repeat([]byte("malware "), 10_000))
		case "/good":
			ranged.Store(r.Header.Get("Range") != "")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	d := &Downloads{Dir: t.TempDir()}
	b := Blob{Name: "app 1.0", SHA256: hexSum(data), Size: int64(len(data))}
	b.URLs = []string{server.URL + "/gone", server.URL + "/bad"}
	var gone *GoneError
	if _, err := d.Fetch(t.Context(), b); !errors.As(err, &gone) || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "app 1.0") {
		t.Errorf("no good source: %v", err)
	}
	if err := os.WriteFile(d.Path(b.SHA256)+".part", data[:1000], 0o644); err != nil {
		t.Fatal(err)
	}
	b.URLs = []string{server.URL + "/good"}
	name, err := d.Fetch(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) || !ranged.Load() {
		t.Errorf("resumed: %d bytes, %v, ranged %v", len(got), err, ranged.Load())
	}
	server.Close()
	if _, err := d.Fetch(t.Context(), b); err != nil {
		t.Errorf("offline: %v", err)
	}
}
