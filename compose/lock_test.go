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
	want := "[{assets:2 false [web] [web]} {debian:latest false [build of api] [api]} {golang:1.26 false [build of api] [api]} {mine false [build of api] [api]} " +
		"{nginx false [cron web] [cron web]} {own:1 false [build of api] [api]}]"
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
		"nginx:latest@" + lockDigest(4), "assets:2@" + lockDigest(0), "redis@" + lockDigest(1), "acme/api", "acme/api", "nginx:latest@" + lockDigest(4),
		"docker-image://golang:1.26@" + lockDigest(2), "docker-image://debian:latest@" + lockDigest(1), "docker-image://mine:latest@" + lockDigest(3),
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

// TestLockContexts pins what builds take from repositories to commits.
func TestLockContexts(t *testing.T) {
	commit, other := strings.Repeat("a1", 20), strings.Repeat("b2", 20)
	p := load(t, `
services:
  web: {build: {context: "https://example.com/web.git#main:app", additional_contexts: {lib: "https://example.com/lib.git", here: .}}}
  api: {build: "https://example.com/web.git#main:app"}
  pinned: {build: "https://example.com/web.git#`+other+`:app"}
  local: {build: .}
`)
	needs := ContextNeeds(p, func(address string) bool { return strings.HasPrefix(address, "https://") })
	want := "[{https://example.com/lib.git true [build of web] [web]} {https://example.com/web.git#main:app true [build of api build of web] [api web]}]"
	if got := fmt.Sprint(needs); got != want {
		t.Errorf("needs\ngot  %s\nwant %s", got, want)
	}
	l := NewLock()
	if missing, _ := l.Drift(needs); len(missing) != 2 {
		t.Errorf("missing %v", missing)
	}
	l.Contexts = map[string]LockedContext{}
	for _, n := range needs {
		l.Contexts[n.Ref] = LockedContext{Commit: commit, UsedBy: n.UsedBy}
	}
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if l, err = ParseLock("compose.lock", text); err != nil {
		t.Fatal(err)
	}
	out := l.Apply(p, nil)
	web := out.Services["web"].Build
	for got, want := range map[string]string{
		web.Context: "https://example.com/web.git#" + commit + ":app", web.AdditionalContexts["lib"]: "https://example.com/lib.git#" + commit,
		out.Services["pinned"].Build.Context: "https://example.com/web.git#" + other + ":app", out.Services["local"].Build.Context: p.Services["local"].Build.Context,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if p.Services["web"].Build.AdditionalContexts["lib"] != "https://example.com/lib.git" {
		t.Error("the project given was changed")
	}
	l.Contexts["https://example.com/gone.git"] = LockedContext{Commit: commit}
	if missing, unused := l.Drift(needs); len(missing) > 0 || fmt.Sprint(unused) != "[https://example.com/gone.git]" {
		t.Errorf("got %v, %v", missing, unused)
	}
	if _, err := ParseLock("compose.lock", []byte("version: 1\ncontexts: {a: {commit: main, used-by: []}}\n")); err == nil {
		t.Error("a branch passed for a commit")
	}
}
