// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strings"
	"testing"
)

const lockProject = `
services:
  web: {image: nginx, volumes: [{type: image, source: "assets:2", target: /a}]}
  pinned: {image: "redis@sha256:0000000000000000000000000000000000000000000000000000000000000001"}
  api: {build: {context: ., additional_contexts: {"own:1": "docker-image://mine"}}, image: acme/api}
  worker: {image: acme/api}
  cron: {image: "nginx", profiles: [never]}
`

func lockDigest(n int) string { return fmt.Sprintf("sha256:%064d", n) }

func TestLock(t *testing.T) {
	p := load(t, lockProject)
	bases := map[string][]string{"api": {"golang:1.26", "debian:latest", "own:1", "acme/api"}}
	needs := LockNeeds(p, bases)
	want := "[{assets:2 [web] [web]} {debian:latest [build of api] [api]} {golang:1.26 [build of api] [api]} {nginx [cron web] [cron web]} {own:1 [build of api] [api]}]"
	if got := fmt.Sprint(needs); got != want {
		t.Errorf("needs\ngot  %s\nwant %s", got, want)
	}
	l := NewLock()
	for i, n := range needs {
		l.Images[n.Ref] = LockedImage{Digest: lockDigest(i), UsedBy: n.UsedBy}
	}
	if missing, unused := l.Drift(needs); len(missing)+len(unused) != 0 {
		t.Errorf("a fresh lock drifts: %v, %v", missing, unused)
	}
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l, err = ParseLock("compose.lock", text)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := p.MarshalYAML()
	out := l.Apply(p, bases)
	if after, _ := p.MarshalYAML(); string(after) != string(before) {
		t.Error("the project given was changed")
	}
	web, api := out.Services["web"], out.Services["api"]
	got := []string{
		web.Image, web.Volumes[0].Source, out.Services["pinned"].Image, api.Image, out.Services["worker"].Image, out.DisabledServices["cron"].Image,
		api.Build.AdditionalContexts["golang:1.26"], api.Build.AdditionalContexts["debian"], api.Build.AdditionalContexts["own:1"],
	}
	wants := []string{
		"nginx:latest@" + lockDigest(3), "assets:2@" + lockDigest(0), "redis@" + lockDigest(1), "acme/api", "acme/api", "nginx:latest@" + lockDigest(3),
		"docker-image://golang:1.26@" + lockDigest(2), "docker-image://debian:latest@" + lockDigest(1), "docker-image://mine",
	}
	for i := range wants {
		if got[i] != wants[i] {
			t.Errorf("got %s, want %s", got[i], wants[i])
		}
	}
	delete(l.Images, "nginx")
	l.Images["old:1"] = LockedImage{Digest: lockDigest(9)}
	if missing, unused := l.Drift(needs); fmt.Sprint(missing, unused) != "[nginx] [old:1]" {
		t.Errorf("got %v, %v", missing, unused)
	}
	if out := l.Apply(p, bases); out.Services["web"].Image != "nginx" {
		t.Errorf("what is not locked became %s", out.Services["web"].Image)
	}
}

func TestParseLockRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"version: 9": "version 9 is not supported", "version: 1\nimagse: {}": "imagse", "images: [": "compose.lock",
		"version: 1\nimages: {a: {digest: nonsense}}": `image "a"`, "version: 1\nimages: {'A B': {digest: " + lockDigest(1) + "}}": "A B",
	} {
		if _, err := ParseLock("compose.lock", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
