// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// program writes a shell script as a plugin and gives a host that finds it.
func program(t *testing.T, name, script string) (*Host, *[]string) {
	t.Helper()
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("the stand-in for a program is a shell script")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	var said []string
	return &Host{Environ: []string{"PATH=" + os.Getenv("PATH"), "LOG=" + filepath.Join(dir, "log")}, PluginDirs: []string{dir}, Say: func(s string) { said = append(said, s) }}, &said
}

// logOf reads what a script wrote to $LOG.
func logOf(t *testing.T, h *Host) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.PluginDirs[0], "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func service(options types.MultiOptions) (*types.Project, types.ServiceConfig) {
	p := &types.Project{Name: "shop", WorkingDir: os.TempDir(), Environment: types.Mapping{"FROM_PROJECT": "yes"}}
	return p, types.ServiceConfig{Name: "db", Provider: &types.ServiceProviderConfig{Type: "cloud", Options: options}}
}

func TestUp(t *testing.T) {
	h, said := program(t, "cloud", `
[ "$2" = metadata ] && exit 1
echo "$* $FROM_PROJECT $COMPOSE_PROVIDER_MESSAGES" >> $LOG
echo '{"type":"info","message":"making it"}{"type":"debug","message":"quiet"}'
echo '{"type":"setenv","message":"URL=a=b"}'
echo '{"type":"rawsetenv","message":"PLAIN=1"}'
`)
	p, s := service(types.MultiOptions{"size": {"10"}, "name": {"x", "y z"}})
	vars, err := h.Run(t.Context(), p, s, Up)
	if err != nil {
		t.Fatal(err)
	}
	if vars.Prefixed["URL"] != "a=b" || vars.Raw["PLAIN"] != "1" || !slices.Equal(*said, []string{"making it"}) {
		t.Errorf("variables %v, said %v", vars, *said)
	}
	want := "compose --project-name=shop up --name=x --name=y z --size=10 db yes error,info,debug,setenv,rawsetenv"
	if got := logOf(t, h); got != want {
		t.Errorf("started with\n%s, want\n%s", got, want)
	}
}

func TestMetadata(t *testing.T) {
	h, _ := program(t, "cloud", `
if [ "$2" = metadata ]; then echo '{"up":{"parameters":[{"name":"size","required":true},{"name":"kind"}]},"down":{"parameters":[{"name":"force"}]}}'; exit; fi
echo "$*" >> $LOG
`)
	p, s := service(types.MultiOptions{"size": {"1"}, "force": {"yes"}})
	for _, command := range []string{Up, Down, Stop} {
		if _, err := h.Run(t.Context(), p, s, command); err != nil {
			t.Fatal(err)
		}
	}
	want := "compose --project-name=shop up --size=1 db\ncompose --project-name=shop down --force=yes db"
	if got := logOf(t, h); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	p, s = service(nil)
	if _, err := h.Run(t.Context(), p, s, Up); err == nil || !strings.Contains(err.Error(), "provider.options.size is missing") {
		t.Error(err)
	}
}

func TestFailures(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"says so", `echo '{"type":"error","message":"no credit"}'; exit 0`, `service "db": cloud up: no credit`},
		{"exits", `echo "it broke" >&2; exit 3`, "exit status 3: it broke"},
		{"talks nonsense", `echo nonsense; sleep 60`, "read its messages"},
		{"wants more than we know", `echo '{"type":"get-image"}'; sleep 60`, `unknown type "get-image"`},
		{"sets nothing", `echo '{"type":"setenv","message":"URL"}'`, `setenv "URL" is not NAME=VALUE`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, _ := program(t, "cloud", "[ $2 = metadata ] && exit 1\n"+test.script)
			p, s := service(nil)
			if _, err := h.Run(t.Context(), p, s, Up); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	p, s := service(nil)
	var missing *NotFoundError
	if _, err := (&Host{PluginDirs: []string{"/none"}}).Run(t.Context(), p, s, Up); !errors.As(err, &missing) || !strings.Contains(missing.Hint(), "/none") {
		t.Error(err)
	}
	s.Provider.Type = "../evil"
	if _, err := (&Host{}).Run(t.Context(), p, s, Up); err == nil || !strings.Contains(err.Error(), "is no provider") {
		t.Error(err)
	}
}

func TestModels(t *testing.T) {
	h, said := program(t, "model", `
echo "$*" >> $LOG
case $1 in
status) echo '{"running":true,"endpoint":"http://models/v1"}' ;;
ls) echo '[{"id":"sha256:1","tags":["ai/there"]}]' ;;
esac
`)
	p, _ := service(nil)
	p.Models = types.Models{"a": {Model: "ai/there"}, "b": {Model: "ai/new", ContextSize: 4096, RuntimeFlags: []string{"--fast"}}}
	endpoint, err := h.Models(t.Context(), p)
	if err != nil || endpoint != "http://models/v1" {
		t.Fatal(endpoint, err)
	}
	want := "status --json\nls --json\npull ai/new\nconfigure --context-size 4096 ai/new -- --fast"
	if got := logOf(t, h); got != want || len(*said) != 1 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	h, _ = program(t, "model", "echo 'not running' >&2; exit 1")
	if _, err := h.Models(t.Context(), p); err == nil || !strings.Contains(err.Error(), "docker model status: exit status 1: not running") {
		t.Error(err)
	}
	var missing *NotFoundError
	if _, err := (&Host{PluginDirs: []string{"/none"}}).Models(t.Context(), p); !errors.As(err, &missing) || missing.Program != "docker-model" {
		t.Error(err)
	}
}
