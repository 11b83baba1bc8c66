// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

func TestPublishFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"compose.yaml": "services:\n  # kept\n  web:\n    image: web\n    extends: {file: sub/base.yaml, service: base}\n    env_file:\n      - a.env\n" +
			"      - {path: b.env, required: false}\n      - $DYNAMIC\n  far:\n    extends: {file: \"oci://x/y\", service: far}\n",
		"plain.yaml":      "services: {web:   {image:   web}} # odd spaces stay\n",
		"sub/base.yaml":   "services:\n  base:\n    extends: {file: deeper.yaml, service: deep}\n    env_file: base.env\n",
		"sub/deeper.yaml": "services:\n  deep: {image: deep}\n",
		"a.env":           "A=1\n",
		"sub/base.env":    "B=1\n",
		"local.yaml":      "services: {}\ninclude:\n  - path: [\"oci://x\", sub/base.yaml]\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &types.Project{WorkingDir: dir, ComposeFiles: []string{filepath.Join(dir, "compose.yaml"), filepath.Join(dir, "plain.yaml")}}
	count := func(files []PublishedFile, k PublishedKind) (n int) {
		for _, f := range files {
			if f.Kind == k {
				n++
			}
		}
		return n
	}
	files, err := PublishFiles(p, true)
	if err != nil {
		t.Fatal(err)
	}
	// b.env is not there, and need not be.
	if count(files, PublishedCompose) != 2 || count(files, PublishedExtended) != 2 || count(files, PublishedEnv) != 2 {
		t.Fatalf("got %d files: %+v", len(files), files)
	}
	text := string(files[0].Content)
	for _, gone := range []string{"sub/base.yaml", "a.env", "b.env"} {
		if strings.Contains(text, " "+gone) {
			t.Errorf("%s is still named:\n%s", gone, text)
		}
	}
	for _, kept := range []string{"# kept", "oci://x/y", "$DYNAMIC", "required: false"} {
		if !strings.Contains(text, kept) {
			t.Errorf("%s is lost:\n%s", kept, text)
		}
	}
	i := slices.IndexFunc(files, func(f PublishedFile) bool { return f.Name == "plain.yaml" })
	if i < 0 || !strings.Contains(string(files[i].Content), "{web:   {image:   web}} # odd") {
		t.Errorf("a file that names no other was changed: %+v", files)
	}
	if files, err = PublishFiles(p, false); err != nil || count(files, PublishedEnv) != 0 || !strings.Contains(string(files[0].Content), "a.env") {
		t.Errorf("without env files: %+v, %v", files, err)
	}
	p.ComposeFiles = []string{filepath.Join(dir, "local.yaml")}
	if _, err := PublishFiles(p, true); err == nil || !strings.Contains(err.Error(), "local.yaml:2: ") {
		t.Errorf("a local include: %v", err)
	}
	p.ComposeFiles = []string{"-"}
	if _, err := PublishFiles(p, true); err == nil {
		t.Error("standard input cannot be published")
	}
}

func TestFindSecrets(t *testing.T) {
	text := strings.Join([]string{
		"services:",
		"  PASSWORD: hunter2222",
		"  PASSWORD: ${PASSWORD}",
		"  PASSWORD_FILE: /run/secrets/x",
		"  DB: postgres://me:geheim@db/x",
		"  DB: postgres://me:${PW}@db/x",
		"  KEY: AKIAABCDEFGHIJKLMNOP",
		"-----BEGIN OPENSSH PRIVATE KEY-----",
		"secrets: [a]",
		"  image: web:1",
		`  token: "ghp_abcdefghijklmnopqrstuvwxyz0123456789"`,
	}, "\n")
	var lines []int
	for _, f := range FindSecrets([]PublishedFile{{Name: "x", Content: []byte(text)}}) {
		lines = append(lines, f.Line)
	}
	if want := []int{2, 5, 7, 8, 11}; !slices.Equal(lines, want) {
		t.Errorf("found lines %v, want %v", lines, want)
	}
}
