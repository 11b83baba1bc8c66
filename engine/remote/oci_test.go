// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"github.com/seed71221737/dev/compose"
)

var project = []compose.PublishedFile{
	{Name: "compose.yaml", Content: []byte("services: {a: {image: a}}\n")},
	{Name: "over.yaml", Content: []byte("services: {b: {image: b}}\n")},
	{Name: "abc.yaml", Content: []byte("services: {c: {image: c}}\n"), Kind: compose.PublishedExtended},
	{Name: "abc.env", Content: []byte("A=1\n"), Kind: compose.PublishedEnv},
}

func TestPublishAndFetch(t *testing.T) {
	host := startRegistry(t)
	for _, version := range []string{"", "1.0", "1.1"} {
		f := newTestFetcher(t, nil)
		ref := host + "/open/app:v" + version
		digest, err := f.Publish(t.Context(), ref, project, PublishOptions{Version: version})
		if err != nil {
			t.Fatal(err)
		}
		want := "services: {a: {image: a}}\n\n---\nservices: {b: {image: b}}\n"
		for _, address := range []string{"oci://" + ref, "oci://" + host + "/open/app@" + digest} {
			got, err := load(t.Context(), f, address)
			if err != nil || got != want {
				t.Errorf("%s: %q, %v", address, got, err)
			}
		}
		dir := filepath.Join(f.o.Cache, "oci", strings.TrimPrefix(digest, "sha256:"))
		for _, file := range project[2:] {
			if got, err := os.ReadFile(filepath.Join(dir, file.Name)); err != nil || !bytes.Equal(got, file.Content) {
				t.Errorf("%s: %q, %v", file.Name, got, err)
			}
		}
	}
}

func TestRegistryCredentials(t *testing.T) {
	host := startRegistry(t)
	ref := host + "/private/app:1"
	stranger := newTestFetcher(t, nil)
	var hint interface{ Hint() string }
	if _, err := stranger.Publish(t.Context(), ref, project, PublishOptions{}); err == nil || !errors.As(err, &hint) || hint.Hint() != "docker login "+host {
		t.Errorf("a stranger: %v", err)
	}
	friend := newTestFetcher(t, nil)
	config := fmt.Sprintf(`{"auths": {%q: {"auth": "bWU6Z2VoZWlt"}}}`, host)
	if err := os.WriteFile(filepath.Join(friend.o.DockerDir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := friend.Publish(t.Context(), ref, project, PublishOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := load(t.Context(), friend, "oci://"+ref); err != nil {
		t.Error(err)
	}
	if _, err := load(t.Context(), stranger, "oci://"+ref); err == nil {
		t.Error("a stranger can read it")
	}
}

// TestHostileArtifacts fetches what no honest tool publishes.
func TestHostileArtifacts(t *testing.T) {
	host := startRegistry(t)
	f := newTestFetcher(t, nil)
	repo, _, err := f.repository(host + "/open/evil:1")
	if err != nil {
		t.Fatal(err)
	}
	layer := func(kind string, text string, notes map[string]string) ocispec.Descriptor {
		t.Helper()
		d := content.NewDescriptorFromBytes(kind, []byte(text))
		d.Annotations = notes
		if err := pushBlob(t.Context(), repo, d, []byte(text)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	good := layer(fileType, "services: {}\n", map[string]string{fileNote: "compose.yaml"})
	push := func(tag string, m ocispec.Manifest) {
		t.Helper()
		m.Versioned, m.MediaType, m.Config = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest, ocispec.DescriptorEmptyJSON
		if err := pushBlob(t.Context(), repo, m.Config, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		d := content.NewDescriptorFromBytes(m.MediaType, data)
		if err := repo.Manifests().PushReference(t.Context(), d, bytes.NewReader(data), tag); err != nil {
			t.Fatal(err)
		}
	}
	named := func(name string) ocispec.Manifest {
		return ocispec.Manifest{ArtifactType: projectType, Layers: []ocispec.Descriptor{
			good, layer(envType, "A="+name, map[string]string{envNote: name}),
		}}
	}
	huge := good
	huge.Size = maxFile + 1
	for tag, c := range map[string]struct {
		m    ocispec.Manifest
		want string
	}{
		"parent":   {named("../x"), "which none may be"},
		"absolute": {named("/etc/x"), "which none may be"},
		"dots":     {named(".."), "which none may be"},
		"shadow":   {named("compose.yaml"), "which none may be"},
		"unnamed":  {named(""), "which none may be"},
		"drive":    {named("c:x"), "which none may be"},
		"empty":    {ocispec.Manifest{ArtifactType: projectType, Layers: []ocispec.Descriptor{}}, "no Compose file in it"},
		"other":    {ocispec.Manifest{ArtifactType: "application/x", Layers: []ocispec.Descriptor{good}}, `it is no Compose project but "application/x"`},
		"image":    {ocispec.Manifest{Layers: []ocispec.Descriptor{good}}, "it is no Compose project but"},
	} {
		push(tag, c.m)
		if got, err := load(t.Context(), f, "oci://"+host+"/open/evil:"+tag); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want %q", tag, got, err, c.want)
		}
	}
	if err := fetchProject(t.Context(), repo, huge, t.TempDir()); err == nil {
		t.Error("a manifest larger than any was read")
	}
	left, err := filepath.Glob(filepath.Join(f.o.Cache, "oci", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("in the cache are %q, %v", left, err)
	}
	if _, err := load(t.Context(), f, "oci://"+host+"/open/evil:gone"); err == nil || !strings.Contains(err.Error(), "no such artifact") {
		t.Error(err)
	}
	if _, err := load(t.Context(), f, "oci://Not A Reference"); err == nil {
		t.Error("not a reference: no error")
	}
}
