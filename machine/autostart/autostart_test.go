// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package autostart

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// entry has what needs quoting.
func entry(program, home string) Entry {
	return Entry{
		Machine: "default", Command: []string{program, "machine", "start", "default"},
		Env: []string{"DEV_HOME=" + home, "A=50%"}, User: `BOX\me`,
	}
}

// TestText compares what every system reads with testdata; UPDATE=1 writes it anew.
func TestText(t *testing.T) {
	for goos, e := range map[string]Entry{
		"linux":   entry(`/opt/my "tools"/dev`, `/home/me/"quoted" & more`),
		"darwin":  entry("/Applications/My Tools/dev", "/Users/me/<x> & more"),
		"windows": entry(`C:\Program Files\dev\dev.exe`, `C:\Users\R & D\.dev`),
	} {
		got := Text(goos, e)
		golden := filepath.Join("testdata", goos+".golden")
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", goos, got, want)
		}
	}
}

// TestXMLIsWellFormed: names and paths with special characters do not break the files of macOS and Windows.
func TestXMLIsWellFormed(t *testing.T) {
	e := Entry{Machine: "a", Command: []string{"/a<b>&c/dev", "start"}, Env: []string{"X=<&>"}, User: "R&D\\me"}
	for _, goos := range []string{"darwin", "windows"} {
		d := xml.NewDecoder(strings.NewReader(Text(goos, e)))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", goos, err, Text(goos, e))
			}
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ goos, config, want string }{
		{"linux", "", "/home/me/.config/systemd/user/dev-machine-x.service"},
		{"linux", "/cfg", "/cfg/systemd/user/dev-machine-x.service"},
		{"darwin", "", "/home/me/Library/LaunchAgents/io.dev.machine.x.plist"},
		{"windows", "", ""},
	} {
		if got := filepath.ToSlash(Path(c.goos, "/home/me", c.config, "x")); got != c.want {
			t.Errorf("%s: %s, want %s", c.goos, got, c.want)
		}
	}
}

// recorder stands in for the system's programs.
type recorder struct {
	calls []string
	fail  string // calls with this in them fail
}

func (r *recorder) run(_ context.Context, name string, args ...string) (string, error) {
	call := strings.Join(append([]string{name}, args...), " ")
	r.calls = append(r.calls, call)
	if r.fail != "" && strings.Contains(call, r.fail) {
		return "", errors.New("it does not run")
	}
	return "", nil
}

func TestEnableOnLinux(t *testing.T) {
	for _, told := range []bool{true, false} {
		r := &recorder{}
		if !told {
			r.fail = "systemctl"
		}
		s := System{OS: "linux", Home: t.TempDir(), Run: r.run}
		for range 2 { // it may be repeated
			o, err := s.Enable(t.Context(), entry("/bin/dev", "/h"))
			if err != nil || (o.Note == "") != told {
				t.Fatalf("told=%v: %+v, %v", told, o, err)
			}
		}
		wanted := filepath.Join(s.Home, ".config/systemd/user/default.target.wants/dev-machine-default.service")
		if _, err := os.Stat(wanted); (err == nil) == told {
			t.Errorf("told=%v: the link that systemctl would make: %v", told, err)
		}
		if !s.Enabled(t.Context(), "default") {
			t.Errorf("told=%v: not enabled", told)
		}
		for range 2 {
			if _, err := s.Disable(t.Context(), "default"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Lstat(wanted); err == nil || s.Enabled(t.Context(), "default") {
			t.Errorf("told=%v: something stayed", told)
		}
	}
}

func TestEnableOnWindows(t *testing.T) {
	r := &recorder{}
	s := System{OS: "windows", Run: r.run}
	if _, err := s.Enable(t.Context(), entry(`C:\dev.exe`, `C:\h`)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Disable(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	want := []string{`schtasks.exe /create /f /tn \dev\machine default /xml `, `schtasks.exe /query /tn \dev\machine default`, `schtasks.exe /delete /f /tn \dev\machine default`}
	if !slices.EqualFunc(r.calls, want, strings.HasPrefix) {
		t.Errorf("calls are %q", r.calls)
	}
	r.fail = "/query"
	if _, err := s.Disable(t.Context(), "default"); err != nil || s.Enabled(t.Context(), "default") {
		t.Errorf("no task: %v", err)
	}
	r.fail = "/create"
	if _, err := s.Enable(t.Context(), entry(`C:\dev.exe`, `C:\h`)); err == nil {
		t.Error("a refused task is no error")
	}
}

// TestProgram: the program is read back from what was written, odd names included.
func TestProgram(t *testing.T) {
	for goos, programs := range map[string][]string{
		"linux":  {"/usr/bin/dev", `/opt/my "tools"/dev`, `/a b\c/dev`, "/50%/$x/dev"},
		"darwin": {"/usr/local/bin/dev", "/Applications/My <Tools> & more/dev"},
	} {
		for _, program := range programs {
			s := System{OS: goos, Home: t.TempDir(), Run: func(context.Context, string, ...string) (string, error) { return "", nil }}
			if got, err := s.Program("default"); got != "" || err != nil {
				t.Errorf("%s: without an entry: %q, %v", goos, got, err)
			}
			if _, err := s.Enable(t.Context(), entry(program, "/home")); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Program("default"); got != program || err != nil {
				t.Errorf("%s: %q, %v; want %q", goos, got, err, program)
			}
		}
	}
}
