// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runMachine runs one command line with a home of its own.
func runMachine(t *testing.T, home string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &out, err: &errs, env: []string{"DEV_HOME=" + home}, cwd: home}
	code = a.run(context.Background(), append([]string{"machine", "image"}, args...))
	return code, out.String(), errs.String()
}

func TestMachineImageCommands(t *testing.T) {
	home := t.TempDir()
	damaged := filepath.Join(home, "machine-images", "images", strings.Repeat("a", 64))
	if err := os.MkdirAll(damaged, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(home, "my.yaml")
	if err := os.WriteFile(spec, []byte("schema: 1\nnonsense: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string // part of it
	}{
		{[]string{"ls", "--json"}, 0, `"problem":"verify image`, ""},
		{[]string{"verify"}, 1, "", "prune --damaged"},
		{[]string{"verify", "no-such-tag"}, 1, "", "machine image pull"},
		{[]string{"pull"}, 1, "", "machine image build"},
		{[]string{"pull", "not a reference"}, 1, "", "not a reference"},
		{[]string{"push", "no-such-tag", "localhost:1/x"}, 1, "", "no-such-tag"},
		{[]string{"build", "--arch", "sparc"}, 1, "", "amd64 and arm64"},
		{[]string{"build", "--refresh"}, 1, "", "--lock"},
		{[]string{"build", "--spec", spec}, 1, "", "my.yaml"},
		{[]string{"prune", "--damaged"}, 0, "sha256:aaaa", "removed 1 images"},
		{[]string{"ls"}, 0, "DIGEST", ""},
	} {
		code, stdout, stderr := runMachine(t, home, c.args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want exit %d, stdout with %q, stderr with %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}
