// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestEnvironments compares projects in an environment with those written down in testdata/environment: the needs, the resulting project, what is said, and
// the variables.
func TestEnvironments(t *testing.T) {
	files, err := filepath.Glob("testdata/environment/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source := archive.Files[0]
			got := &txtar.Archive{Comment: archive.Comment, Files: append([]txtar.File{source}, environmentResult(t, string(source.Data))...)}
			if want := string(txtar.Format(archive)); string(txtar.Format(got)) != want {
				if *update {
					if err := os.WriteFile(file, txtar.Format(got), 0o666); err != nil {
						t.Fatal(err)
					}
					return
				}
				t.Errorf("got\n%s\nwant\n%s", txtar.Format(got), want)
			}
		})
	}
}

// environmentResult loads a Compose file in the environment "feature", with ports from 20000 and subnets from 10.200.0.0 and fd99::.
func environmentResult(t *testing.T, text string) []txtar.File {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	var needs Needs
	var notes []string
	o := LoadOptions{WorkingDir: dir, ProjectName: "shop-feature", Environment: map[string]string{}}
	o.Transform = func(p *types.Project) (*types.Project, error) {
		before, err := p.MarshalYAML()
		if err != nil {
			return nil, err
		}
		needs = NeedsOf(p)
		var out *types.Project
		out, notes = numberedEnvironment(needs).Apply(p)
		if after, err := p.MarshalYAML(); err != nil || string(after) != string(before) {
			t.Errorf("the project given was changed: %v", err)
		}
		return out, nil
	}
	p, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	result, err := p.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	var asked, vars strings.Builder
	for _, n := range needs.Ports {
		fmt.Fprintf(&asked, "port %s %s %d\n", n.Key, n.Protocol, n.Count)
	}
	for _, n := range needs.Subnets {
		fmt.Fprintf(&asked, "subnet %s %s\n", n.Key, n.Like)
	}
	values := PortVariables(p)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&vars, "%s=%s\n", name, values[name])
	}
	return []txtar.File{
		{Name: "needs", Data: []byte(asked.String())},
		{Name: "result.yaml", Data: []byte(strings.ReplaceAll(string(result), dir, "/dir"))},
		{Name: "notes", Data: []byte(strings.Join(notes, "\n") + "\n")},
		{Name: "variables", Data: []byte(vars.String())},
	}
}

func numberedEnvironment(needs Needs) Environment {
	e := Environment{Name: "feature", Ports: map[string]uint16{}, Subnets: map[string]netip.Prefix{}}
	next := uint16(20000)
	for _, n := range needs.Ports {
		e.Ports[n.Key] = next
		next += uint16(n.Count)
	}
	for _, n := range needs.Subnets {
		to := netip.MustParseAddr("10.200.0.0")
		if n.Like.Addr().Is6() {
			to = netip.MustParseAddr("fd99::")
		}
		e.Subnets[n.Key] = netip.PrefixFrom(to, n.Like.Bits())
	}
	return e
}

// TestEnvironmentIsStable: an environment applied to its own result changes nothing more, so that variables with its ports may be used in ports.
func TestEnvironmentIsStable(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/environment/pinned.txt")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(archive.Files[0].Data), `"8080:80"`, `"${DEV_PORT_web_80:-8080}:80"`)
	plain := environmentResult(t, string(archive.Files[0].Data))
	for i, f := range environmentResult(t, text) {
		if f.Name == "result.yaml" && string(f.Data) != string(plain[i].Data) {
			t.Errorf("got\n%s\nwant\n%s", f.Data, plain[i].Data)
		}
	}
}

func TestPortVariable(t *testing.T) {
	for key, want := range map[string]string{
		"web/80/tcp": "DEV_PORT_web_80", "dns/53/udp": "DEV_PORT_dns_53_udp", "my-api.v2/80/tcp#2": "DEV_PORT_my_api_v2_80_2",
	} {
		if got := PortVariable(key); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}

func TestFolderName(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("services: {a: {image: b}}"), 0o666); err != nil {
		t.Fatal(err)
	}
	o := LoadOptions{WorkingDir: dir, FolderName: func(d string) string {
		if d != dir {
			t.Errorf("asked for %q, want %q", d, dir)
		}
		return "Shop"
	}}
	if name, err := Name(t.Context(), o); err != nil || name != "shop" {
		t.Errorf("got %q, %v", name, err)
	}
	if p, err := Load(t.Context(), o); err != nil || p.Name != "shop" {
		t.Errorf("got %v, %v", p, err)
	}
}
