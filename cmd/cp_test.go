// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"path/filepath"
	"testing"
)

func TestParseCpSide(t *testing.T) {
	for arg, want := range map[string]cpSide{
		"web:/etc":      {"web", "/etc"},
		"web:etc/a:b":   {"web", "etc/a:b"},
		"file":          {"", "file"},
		"/abs/with:col": {"", "/abs/with:col"},
		"./rel:x":       {"", "./rel:x"},
		"..":            {"", ".."},
		"-":             {"", "-"},
		"web:":          {"web", ""},
	} {
		if got := parseCpSide(arg); got != want {
			t.Errorf("parseCpSide(%q) = %+v, want %+v", arg, got, want)
		}
	}
}

func TestCpPath(t *testing.T) {
	cwd := t.TempDir()
	a := &app{cwd: cwd}
	sep := string(filepath.Separator)
	for local, want := range map[string]string{
		"file":    filepath.Join(cwd, "file"),
		"dir/":    filepath.Join(cwd, "dir") + sep,
		"dir/.":   filepath.Join(cwd, "dir") + sep + ".",
		".":       cwd + sep + ".",
		"./":      cwd + sep,
		"../x":    filepath.Join(filepath.Dir(cwd), "x"),
		"a/../b/": filepath.Join(cwd, "b") + sep,
	} {
		got, err := a.cpPath(local)
		if err != nil || got != want {
			t.Errorf("cpPath(%q) = %q, %v; want %q", local, got, err, want)
		}
	}
}
