// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// TestServiceConfigRoundTrip packs and unpacks every service of testdata: nothing may look changed afterwards, and the hash stays.
func TestServiceConfigRoundTrip(t *testing.T) {
	for name, file := range convertFiles(t) {
		p := loadFile(t, file, nil)
		for _, service := range p.ServiceNames() {
			s := p.Services[service]
			label, err := EncodeServiceConfig(s)
			if err != nil {
				t.Fatal(err)
			}
			back, err := DecodeServiceConfig(label)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, service, err)
			}
			if d := DiffServices(back, s); len(d) != 0 {
				t.Errorf("%s: %s: changed by encoding: %v", name, service, d)
			}
			if d := DiffServices(s, s); len(d) != 0 {
				t.Errorf("%s: %s: differs from itself: %v", name, service, d)
			}
			a, errA := ServiceHash(p, hashed(s))
			b, errB := ServiceHash(p, back)
			if a != b || errA != nil || errB != nil {
				t.Errorf("%s: %s: hash %s became %s (%v, %v)", name, service, a, b, errA, errB)
			}
		}
	}
}

func TestServiceConfigIsShort(t *testing.T) {
	s := types.ServiceConfig{ContainerSpec: types.ContainerSpec{
		Image:       "postgres:15",
		Environment: types.MappingWithEquals{"POSTGRES_PASSWORD": ptr("hunter2"), "POSTGRES_DB": ptr("app")},
		Networks:    map[string]*types.ServiceNetworkConfig{"default": nil},
		Volumes:     []types.ServiceVolumeConfig{{Type: "volume", Source: "data", Target: "/var/lib/postgresql/data", Volume: &types.ServiceVolumeVolume{}}},
	}}
	label, err := EncodeServiceConfig(s)
	if err != nil || len(label) > 250 {
		t.Errorf("%d characters (%v), want at most 250: %s", len(label), err, label)
	}
}

func TestDecodeServiceConfigRefusesNonsense(t *testing.T) {
	whole, err := EncodeServiceConfig(types.ServiceConfig{ContainerSpec: types.ContainerSpec{Image: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"", "1", "2" + whole[1:], whole[:len(whole)-3], "1!!!", "1AAAA", "{}"} {
		if s, err := DecodeServiceConfig(label); err == nil {
			t.Errorf("%q was decoded to %v", label, s)
		}
	}
}

func BenchmarkEncodeServiceConfig(b *testing.B) {
	p, err := Load(context.Background(), LoadOptions{WorkingDir: testdataDir(b), Files: []string{"basic.yaml"}, Environment: testEnvironment})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := EncodeServiceConfig(p.Services["web"]); err != nil {
			b.Fatal(err)
		}
	}
}

func testdataDir(tb testing.TB) string {
	tb.Helper()
	dir, err := filepath.Abs("testdata/convert")
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// FuzzDecodeServiceConfig: labels come from outside; whatever they hold, decoding and comparing ends without a panic.
func FuzzDecodeServiceConfig(f *testing.F) {
	for _, s := range []types.ServiceConfig{{}, {Restart: "always", ContainerSpec: types.ContainerSpec{Image: "x"}}} {
		label, err := EncodeServiceConfig(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(label)
	}
	f.Add("1")
	f.Add("1AAAA")
	f.Fuzz(func(t *testing.T, label string) {
		s, err := DecodeServiceConfig(label)
		if err != nil {
			return
		}
		DiffServices(s, types.ServiceConfig{})
		if d := DiffServices(s, s); len(d) != 0 {
			t.Errorf("differs from itself: %v", d)
		}
		AnonymousVolumes(Container{Labels: map[string]string{LabelServiceConfig: label}}, s)
	})
}

// FuzzDecodableJSON fuzzes what is inside the label.
func FuzzDecodableJSON(f *testing.F) {
	files, err := filepath.Glob("testdata/convert/*.golden.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(`{"ulimits":{"a":1,"b":{"soft":1}},"volumes":[{"bind":{}},3],"extra_hosts":["a=b",4],"secrets":[{"mode":"0440"},{"mode":"x"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var fields map[string]any
		if json.Unmarshal([]byte(text), &fields) == nil {
			decodable(fields)
		}
	})
}

func TestDiffServices(t *testing.T) {
	spec := func(c types.ContainerSpec) types.ServiceConfig { return types.ServiceConfig{ContainerSpec: c} }
	env := func(pairs ...string) types.ServiceConfig {
		return spec(types.ContainerSpec{Environment: types.NewMappingWithEquals(pairs)})
	}
	ports := func(published ...string) types.ServiceConfig {
		var s types.ServiceConfig
		for _, p := range published {
			s.Ports = append(s.Ports, types.ServicePortConfig{Target: 80, Published: p})
		}
		return s
	}
	for _, test := range []struct {
		name          string
		before, after types.ServiceConfig
		want          []string // "field: old -> new", absent ones as "-"
	}{
		{"nothing", env("A=1"), env("A=1"), nil},
		{"a variable", env("A=1", "B=2"), env("A=1", "B=3"), []string{"environment.B: 2 -> 3"}},
		{"a new variable", env(), env("B=3"), []string{"environment.B: - -> 3"}},
		{"all variables gone", env("A=1", "B="), spec(types.ContainerSpec{}), []string{"environment.A: 1 -> -", "environment.B:  -> -"}},
		{"a variable without value", env("A"), env("A=1"), []string{"environment.A: - -> 1"}},
		{"a new variable without value", env("A=1"), env("A=1", "B"), []string{"environment.B: - -> "}},
		{"a secret variable", env("DB_PASSWORD=a"), env("DB_PASSWORD=b"), []string{"environment.DB_PASSWORD: *** -> ***"}},
		{"a URL", env("URL=postgres://me:secret@db/x"), env("URL=postgres://me:other@db/y"), []string{"environment.URL: postgres://me:***@db/x -> postgres://me:***@db/y"}},
		{"a published port", ports("80", "81"), ports("80", "82"), []string{"ports[1].published: 81 -> 82"}},
		{"a port in front", ports("81"), ports("80", "81"), []string{`ports[0]: - -> {"published":"80","target":80}`}},
		{"a port less", ports("80", "81", "82"), ports("80", "82"), []string{`ports[1]: {"published":"81","target":80} -> -`}},
		{"the image", spec(types.ContainerSpec{Image: "a:1"}), spec(types.ContainerSpec{Image: "a:2"}), []string{"image: a:1 -> a:2"}},
		{"the command", spec(types.ContainerSpec{Command: types.ShellCommand{"a", "b"}}), spec(types.ContainerSpec{Command: types.ShellCommand{"a", "c", "d"}}), []string{"command[1]: b -> c", "command[2]: - -> d"}},
		{"a new command", spec(types.ContainerSpec{}), spec(types.ContainerSpec{Command: types.ShellCommand{"a"}}), []string{`command: - -> ["a"]`}},
		{"a password in a command", spec(types.ContainerSpec{Command: types.ShellCommand{"x", "--password=a"}}), spec(types.ContainerSpec{Command: types.ShellCommand{"x", "--password=b"}}), []string{"command[1]: --password=*** -> --password=***"}},
		{"a label", spec(types.ContainerSpec{Labels: types.Labels{"a.b.c": "1"}}), spec(types.ContainerSpec{Labels: types.Labels{"a.b.c": "2"}}), []string{"labels.a.b.c: 1 -> 2"}},
		{"a secret label", spec(types.ContainerSpec{Labels: types.Labels{"auth.token.v": "1"}}), spec(types.ContainerSpec{Labels: types.Labels{"auth.token.v": "2"}}), []string{"labels.auth.token.v: *** -> ***"}},
		{"a network", spec(types.ContainerSpec{Networks: map[string]*types.ServiceNetworkConfig{"a": nil}}), spec(types.ContainerSpec{Networks: map[string]*types.ServiceNetworkConfig{"a": nil, "b": nil}}), []string{"networks.b: - -> "}},
		{"what does not count", types.ServiceConfig{Scale: ptr(1), WorkloadSpec: types.WorkloadSpec{DependsOn: types.DependsOnConfig{"x": {}}}}, types.ServiceConfig{Scale: ptr(2)}, nil},
		{"a flag", spec(types.ContainerSpec{}), spec(types.ContainerSpec{Privileged: true}), []string{"privileged: - -> true"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, c := range DiffServices(test.before, test.after) {
				if !c.OldSet {
					c.Old = "-"
				}
				if !c.NewSet {
					c.New = "-"
				}
				got = append(got, c.Field+": "+c.Old+" -> "+c.New)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestMask(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"DEBUG", "1", "1"},
		{"DB_PASS", "x", masked},
		{"AWS_SECRET_ACCESS_KEY", "x", masked},
		{"API_KEY", "x", masked},
		{"APIKEY", "x", masked},
		{"PGPASSWORD", "x", masked},
		{"SESSION", "x", masked},
		{"DB_PASSWORD", "", ""},
		{"MONKEY", "x", "x"},
		{"KEYBOARD", "de", "de"},
		{"COMPASS", "x", masked}, // better one too many
		{"AUTHOR", "x", "x"},
		{"X", "-----BEGIN RSA PRIVATE KEY-----\nabc", masked},
		{"X", "ghp_0123456789abcdefABCD", masked},
		{"X", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.x", masked},
		{"X", "http://u:p@h/ and http://h", "http://u:" + masked + "@h/ and http://h"},
		{"X", "redis://:p@h", "redis://:" + masked + "@h"},
		{"X", "host=db password=abc user=x", "host=db password=" + masked + " user=x"},
		{"X", "--api-key 'a b' -v", "--api-key " + masked + " -v"},
		{"X", "see http://h:80/x@y", "see http://h:80/x@y"},
	} {
		if got := maskText(test.name, test.value); got != test.want {
			t.Errorf("%s=%q: got %q, want %q", test.name, test.value, got, test.want)
		}
	}
	nested := mask("logging", map[string]any{"options": map[string]any{"splunk-token": "x", "max": 3.0}, "list": []any{"token=a"}})
	b, err := json.Marshal(nested)
	if want := `{"list":["token=***"],"options":{"max":3,"splunk-token":"***"}}`; err != nil || string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}
