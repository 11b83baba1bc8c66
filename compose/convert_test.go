// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// TestConvertGolden converts all that is in testdata/convert and compares it with what stands beside each file. Fields at their zero value are
// left out there.
func TestConvertGolden(t *testing.T) {
	for name, file := range convertFiles(t) {
		t.Run(name, func(t *testing.T) {
			p := loadFile(t, file, func(o *LoadOptions) { o.AllResources = true })
			b, err := json.MarshalIndent(pruned(everything(t, p, file)), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, '\n')
			golden := filepath.Join("testdata", "convert", name+".golden.json")
			if *update {
				if err := os.WriteFile(golden, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, want) {
				t.Errorf("%s differs (-update rewrites it):\n%s", golden, firstDifference(string(want), string(b)))
			}
		})
	}
}

// everything is all that a project converts to, errors and warnings included.
func everything(t *testing.T, p *types.Project, file string) map[string]any {
	t.Helper()
	refs := map[string]Ref{}
	for i, name := range p.ServiceNames() {
		refs[name] = Ref{ID: strings.Repeat(string(rune('a'+i)), 12)}
	}
	containers, builds, networks, volumes := map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}
	clean := func(err error) string { return strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", "") }
	for _, name := range p.ServiceNames() {
		spec, files, err := NewContainerSpec(p, p.Services[name], ContainerInput{Number: 1, Services: refs})
		if err != nil {
			containers[name] = map[string]any{"error": clean(err)}
			continue
		}
		for _, label := range []string{LabelServiceConfig, LabelConfigFiles} { // tested elsewhere
			delete(spec.Config.Labels, label)
		}
		containers[name] = map[string]any{"spec": spec, "files": filesAsText(files)}
		if p.Services[name].Build != nil {
			build, err := NewBuildSpec(p, p.Services[name], BuildOptions{AllPlatforms: true})
			if err != nil {
				t.Error(err)
			}
			builds[name] = build
		}
	}
	for _, key := range p.NetworkNames() {
		if n, err := NewNetworkSpec(p, key); err != nil {
			networks[key] = map[string]any{"error": clean(err)}
		} else {
			networks[key] = n
		}
	}
	for _, key := range p.VolumeNames() {
		if v, err := NewVolumeSpec(p, key); err != nil {
			volumes[key] = map[string]any{"error": clean(err)}
		} else {
			volumes[key] = v
		}
	}
	var warnings []string
	for _, w := range Unsupported(p) {
		warnings = append(warnings, strings.ReplaceAll(w.String(), filepath.Dir(file)+"/", ""))
	}
	return map[string]any{"containers": containers, "builds": builds, "networks": networks, "volumes": volumes, "warnings": warnings}
}

func filesAsText(files []File) []any {
	var list []any
	for _, f := range files {
		list = append(list, map[string]any{"path": f.Path, "content": string(f.Content), "uid": f.UID, "gid": f.GID, "mode": f.Mode})
	}
	return list
}

// pruned is v as plain values without zero ones. Empty lists stay: some of them mean something.
func pruned(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var plain any
	if err := json.Unmarshal(b, &plain); err != nil {
		panic(err)
	}
	return prune(plain)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			value = prune(value)
			m, isMap := value.(map[string]any)
			list, isList := value.([]any)
			switch {
			case value == nil, value == "", value == false, value == 0.0, isMap && len(m) == 0, key == "ConsoleSize" && isList && len(list) == 2:
				delete(v, key)
			default:
				v[key] = value
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(0, i-3)
			return "want:\n" + strings.Join(a[from:min(len(a), i+4)], "\n") + "\ngot:\n" + strings.Join(b[from:min(len(b), i+4)], "\n")
		}
	}
	return "one is longer"
}

// oneService is a project of one service, for table tests.
func oneService(s types.ServiceConfig) (*types.Project, types.ServiceConfig) {
	s.Name = "app"
	if s.Image == "" {
		s.Image = "busybox"
	}
	return &types.Project{
		Name: "p", WorkingDir: "/srv/app", Environment: types.Mapping{},
		Services: types.Services{"app": s}, Networks: types.Networks{"default": {Name: "p_default"}},
	}, s
}

func TestFieldsThatCannotBeHonoured(t *testing.T) {
	spec := func(c types.ContainerSpec) types.ServiceConfig { return types.ServiceConfig{ContainerSpec: c} }
	work := func(w types.WorkloadSpec) types.ServiceConfig { return types.ServiceConfig{WorkloadSpec: w} }
	for _, test := range []struct {
		field string
		s     types.ServiceConfig
	}{
		{"dns", spec(types.ContainerSpec{DNS: types.StringList{"nope"}})},
		{"mac_address", spec(types.ContainerSpec{MacAddress: "nope"})},
		{"networks.default.ipv4_address", spec(types.ContainerSpec{Networks: map[string]*types.ServiceNetworkConfig{"default": {Ipv4Address: "x"}}})},
		{"networks.default.mac_address", spec(types.ContainerSpec{Networks: map[string]*types.ServiceNetworkConfig{"default": {MacAddress: "x"}}})},
		{"mac_address", spec(types.ContainerSpec{MacAddress: "02:42:ac:11:65:43", Networks: map[string]*types.ServiceNetworkConfig{"default": {MacAddress: "02:42:ac:11:65:44"}}})},
		{"mac_address", spec(types.ContainerSpec{MacAddress: "02:42:ac:11:65:43", NetworkMode: "host"})},
		{"hostname", spec(types.ContainerSpec{Hostname: "x", NetworkMode: "container:y"})},
		{"links", types.ServiceConfig{Links: []string{"x"}, ContainerSpec: types.ContainerSpec{NetworkMode: "host"}}},
		{"network_mode", spec(types.ContainerSpec{NetworkMode: "service:other"})},
		{"volumes_from", spec(types.ContainerSpec{VolumesFrom: []string{"other"}})},
		{"cgroup", spec(types.ContainerSpec{Cgroup: "service:x"})},
		{"uts", spec(types.ContainerSpec{Uts: "container:x"})},
		{"isolation", spec(types.ContainerSpec{Isolation: "process"})},
		{"security_opt[1]", spec(types.ContainerSpec{SecurityOpt: []string{"no-new-privileges", "nonsense"}})},
		{"security_opt", spec(types.ContainerSpec{SecurityOpt: []string{"seccomp=missing.json"}})},
		{"cpus", spec(types.ContainerSpec{CPUS: 1, CPUQuota: 1000})},
		{"restart", types.ServiceConfig{Restart: "sometimes"}},
		{"restart", types.ServiceConfig{Restart: "on-failure:many"}},
		{"restart", types.ServiceConfig{Restart: "always:3"}},
		{"ports[0].host_ip", work(types.WorkloadSpec{Ports: []types.ServicePortConfig{{Target: 80, HostIP: "localhost"}}})},
		{"ports[0].published", work(types.WorkloadSpec{Ports: []types.ServicePortConfig{{Target: 80, Published: "http"}}})},
		{"ports[0].protocol", work(types.WorkloadSpec{Ports: []types.ServicePortConfig{{Target: 80, Protocol: "icmp"}}})},
		{"ports[0].target", work(types.WorkloadSpec{Ports: []types.ServicePortConfig{{Target: 70000}}})},
		{"expose[0]", work(types.WorkloadSpec{Expose: types.StringOrNumberList{"http"}})},
		{"healthcheck.interval", work(types.WorkloadSpec{HealthCheck: &types.HealthCheckConfig{Interval: ptr(types.Duration(1))}})},
		{"volumes[0].type", spec(types.ContainerSpec{Volumes: []types.ServiceVolumeConfig{{Type: "npipe", Target: "/x"}}})},
		{"volumes[0].type", spec(types.ContainerSpec{Volumes: []types.ServiceVolumeConfig{{Type: "floppy", Target: "/x"}}})},
		{"volumes[0].bind.selinux", spec(types.ContainerSpec{Volumes: []types.ServiceVolumeConfig{{Type: "bind", Source: "/a", Target: "/x", Bind: &types.ServiceVolumeBind{SELinux: "z"}}}})},
		{"secrets[0]", spec(types.ContainerSpec{Secrets: []types.ServiceSecretConfig{{Source: "none"}}})},
		{"configs[0]", spec(types.ContainerSpec{Configs: []types.ServiceConfigObjConfig{{Source: "none"}}})},
		{"provider", types.ServiceConfig{Provider: &types.ServiceProviderConfig{Type: "x"}}},
		{"models", spec(types.ContainerSpec{Models: map[string]*types.ServiceModelConfig{"x": nil}})},
		{"umask", spec(types.ContainerSpec{Umask: ptr(uint32(7))})},
	} {
		t.Run(test.field, func(t *testing.T) {
			p, s := oneService(test.s)
			_, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1})
			field, ok := err.(*FieldError) //nolint:errorlint // it is what the contract says
			if !ok || field.Field != test.field || field.Service != "app" {
				t.Errorf("got error %v, want one about %s of app", err, test.field)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestInheritAnonymousVolumes(t *testing.T) {
	id := func(c string) string { return strings.Repeat(c, 64) }
	volume := func(target, source string) types.ServiceVolumeConfig {
		return types.ServiceVolumeConfig{Type: "volume", Source: source, Target: target}
	}
	before := types.ServiceConfig{ContainerSpec: types.ContainerSpec{Volumes: []types.ServiceVolumeConfig{volume("/kept", ""), volume("/dropped", ""), volume("/named", "data")}}}
	label, err := EncodeServiceConfig(before)
	if err != nil {
		t.Fatal(err)
	}
	old := Container{
		Labels: map[string]string{LabelServiceConfig: label},
		Mounts: []Mount{
			{Type: "volume", Name: id("a"), Destination: "/kept"},
			{Type: "volume", Name: id("b"), Destination: "/dropped"},
			{Type: "volume", Name: id("c"), Destination: "/of-image"},
			{Type: "volume", Name: id("d"), Destination: "/now-named"},
			{Type: "volume", Name: id("e"), Destination: "/now-bound"},
			{Type: "volume", Name: "p_data", Destination: "/named"},
			{Type: "bind", Source: "/x", Destination: "/bound"},
			{Type: "tmpfs", Destination: "/tmp"},
		},
	}
	p, s := oneService(types.ServiceConfig{ContainerSpec: types.ContainerSpec{Volumes: []types.ServiceVolumeConfig{
		volume("/kept", ""), volume("/now-named", "data"), {Type: "bind", Source: "/y", Target: "/now-bound"},
	}}})
	p.Volumes = types.Volumes{"data": {Name: "p_data"}}
	keep := AnonymousVolumes(old, s)
	var places []string
	for _, m := range keep {
		places = append(places, m.Destination)
	}
	if want := []string{"/kept", "/of-image"}; !slices.Equal(places, want) {
		t.Errorf("kept %v, want %v", places, want)
	}
	spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1, Inherit: keep})
	if err != nil {
		t.Fatal(err)
	}
	want := []mount.Mount{
		{Type: "volume", Source: id("a"), Target: "/kept"},
		{Type: "volume", Source: id("c"), Target: "/of-image"},
	}
	if !reflect.DeepEqual(spec.Host.Mounts, want) {
		t.Errorf("mounts %v, want %v", spec.Host.Mounts, want)
	}
	if len(AnonymousVolumes(Container{Mounts: old.Mounts}, types.ServiceConfig{})) != 5 {
		t.Error("a container that docker compose made does not keep all its anonymous volumes")
	}
}

func TestResolve(t *testing.T) {
	p, s := oneService(types.ServiceConfig{ContainerSpec: types.ContainerSpec{
		NetworkMode: "service:db", Ipc: "service:db", Pid: "service:web", VolumesFrom: []string{"db:ro", "web", "container:x:ro"},
	}})
	known := map[string]Ref{"db": {ID: "dbid"}, "web": {ID: "webid"}}
	direct, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1, Services: known, ImageID: "sha256:1"})
	if err != nil {
		t.Fatal(err)
	}
	if h := direct.Host; h.NetworkMode != "container:dbid" || h.IpcMode != "container:dbid" || h.PidMode != "container:webid" ||
		!slices.Equal(h.VolumesFrom, []string{"dbid:ro", "webid", "x:ro"}) {
		t.Errorf("got %q %q %q %q", h.NetworkMode, h.IpcMode, h.PidMode, h.VolumesFrom)
	}
	pending, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1, Services: map[string]Ref{"db": {Op: 3}, "web": {ID: "webid"}}, Image: Ref{Op: 2}})
	if err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(pending.Config.Labels)
	resolved, err := pending.Resolve(Results{2: {ID: "sha256:1"}, 3: {ID: "dbid"}})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(resolved.Host, direct.Host) || !reflect.DeepEqual(resolved.Config, direct.Config) {
		t.Errorf("resolved later: %+v\nat once: %+v", resolved.Config.Labels, direct.Config.Labels)
	}
	if !maps.Equal(before, pending.Config.Labels) || pending.Host.NetworkMode == resolved.Host.NetworkMode {
		t.Error("the unresolved spec was changed")
	}
	if again, err := direct.Resolve(nil); err != nil || again.Config != direct.Config {
		t.Error("nothing to resolve, and yet something was")
	}
}

func TestReferences(t *testing.T) {
	s := types.ServiceConfig{ContainerSpec: types.ContainerSpec{
		NetworkMode: "service:a", Pid: "service:a", Ipc: "host", VolumesFrom: []string{"c:ro", "b", "container:x"},
	}}
	if got, want := References(s), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLinksNameTheLinkedContainers(t *testing.T) {
	p, s := oneService(types.ServiceConfig{Links: []string{"db:database"}})
	p.Services["db"] = types.ServiceConfig{Name: "db", Scale: ptr(2)}
	spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"p-db-1:database", "p-db-1:db-1", "p-db-1:p-db-1", "p-db-2:database", "p-db-2:db-2", "p-db-2:p-db-2"}
	if !slices.Equal(spec.Host.Links, want) {
		t.Errorf("links %v, want %v", spec.Host.Links, want)
	}
	spec, _, err = NewContainerSpec(p, s, ContainerInput{Number: 1, Replicas: map[string][]string{"db": {"p-db-7"}}})
	if err != nil || spec.Host.Links[0] != "p-db-7:database" {
		t.Errorf("links %v, %v", spec.Host.Links, err)
	}
}

func TestNamesInCompatibilityMode(t *testing.T) {
	p, s := oneService(types.ServiceConfig{})
	s.Image = ""
	if got := ContainerName(p, s, 2) + " " + ImageName(p, s); got != "p-app-2 p-app" {
		t.Errorf("got %s", got)
	}
	p.Environment[compatibilityVariable] = "true"
	if got := ContainerName(p, s, 2) + " " + ImageName(p, s); got != "p_app_2 p_app" {
		t.Errorf("got %s", got)
	}
}

func TestEnvironmentDefaults(t *testing.T) {
	p, s := oneService(types.ServiceConfig{ContainerSpec: types.ContainerSpec{Environment: types.MappingWithEquals{"A": ptr("1"), "HTTP_PROXY": ptr(""), "BARE": nil}}})
	spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1, Environment: map[string]string{"HTTP_PROXY": "http://proxy", "NO_PROXY": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=1", "BARE", "HTTP_PROXY=", "NO_PROXY=x"}; !slices.Equal(spec.Config.Env, want) {
		t.Errorf("environment %q, want %q", spec.Config.Env, want)
	}
}

func TestSeccompProfileIsInlined(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte("{\n \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, s := oneService(types.ServiceConfig{ContainerSpec: types.ContainerSpec{SecurityOpt: []string{"seccomp:p.json"}}})
	p.WorkingDir = dir
	spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`}; !slices.Equal(spec.Host.SecurityOpt, want) {
		t.Errorf("got %q", spec.Host.SecurityOpt)
	}
	if !strings.HasPrefix(spec.Config.Labels[LabelFiles], "security_opt.seccomp=") {
		t.Errorf("label %q", spec.Config.Labels[LabelFiles])
	}
}

func TestFilesWithOwnerAndMode(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	mode := types.FileMode(0o400)
	p, s := oneService(types.ServiceConfig{ContainerSpec: types.ContainerSpec{
		Secrets: []types.ServiceSecretConfig{{Source: "key", UID: "5", GID: "6", Mode: &mode}, {Source: "key", Target: "/etc/key"}},
	}})
	p.WorkingDir = dir
	p.Secrets = types.Secrets{"key": {File: filepath.Join(dir, "key")}}
	spec, files, err := NewContainerSpec(p, s, ContainerInput{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := []File{{Path: "/run/secrets/key", Content: []byte("k"), UID: 5, GID: 6, Mode: 0o400}}; !reflect.DeepEqual(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
	if len(spec.Host.Mounts) != 1 || spec.Host.Mounts[0].Target != "/etc/key" || !spec.Host.Mounts[0].ReadOnly {
		t.Errorf("mounts %v", spec.Host.Mounts)
	}
	s.Secrets[0].UID = "root"
	if _, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1}); err == nil || !strings.Contains(err.Error(), "secrets[0].uid") {
		t.Errorf("error %v", err)
	}
	p.Secrets = types.Secrets{"key": {File: filepath.Join(dir, "gone")}}
	if _, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1}); err == nil || !strings.Contains(err.Error(), "secrets.key.file") {
		t.Errorf("error %v", err)
	}
}

func TestFilesLabelTellsChangedContent(t *testing.T) {
	p, s := oneService(types.ServiceConfig{ContainerSpec: types.ContainerSpec{
		Configs: []types.ServiceConfigObjConfig{{Source: "conf"}}, Secrets: []types.ServiceSecretConfig{{Source: "pw"}},
	}})
	p.Configs = types.Configs{"conf": {Content: "a"}}
	p.Secrets = types.Secrets{"pw": {Environment: "PW"}}
	p.Environment["PW"] = "1"
	spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	made := Container{Labels: spec.Config.Labels}
	diff := func() []Change {
		want, err := FilesLabel(p, s)
		if err != nil {
			t.Fatal(err)
		}
		return DiffFiles(made, want)
	}
	if d := diff(); len(d) != 0 {
		t.Errorf("unchanged, yet %v", d)
	}
	p.Configs["conf"] = types.ConfigObjConfig{Content: "b"}
	p.Environment["PW"] = "2"
	d := diff()
	if len(d) != 2 || d[0].Field != "configs.conf.content" || d[1].Field != "secrets.pw.content" || d[1].Old != masked || d[0].Old == d[0].New {
		t.Errorf("changed, got %v", d)
	}
	made.Labels = map[string]string{LabelConfigHash: "x"}
	if d := diff(); d != nil {
		t.Errorf("a container of docker compose's: got %v", d)
	}
}

func TestPlatformOfBuilds(t *testing.T) {
	for _, test := range []struct {
		name, platform, byEnv string
		listed                []string
		all                   bool
		want                  []string
		fails                 bool
	}{
		{name: "the builder's own"},
		{name: "that of the service", platform: "linux/arm64", want: []string{"linux/arm64"}},
		{name: "that of the environment", byEnv: "linux/arm64", want: []string{"linux/arm64"}},
		{name: "one of several", platform: "linux/arm64", listed: []string{"linux/amd64", "linux/arm64"}, want: []string{"linux/arm64"}},
		{name: "several, one needed", listed: []string{"linux/amd64", "linux/arm64"}},
		{name: "several", listed: []string{"linux/amd64", "linux/arm64"}, all: true, want: []string{"linux/amd64", "linux/arm64"}},
		{name: "several, with a service's", platform: "linux/arm64", listed: []string{"linux/amd64", "linux/arm64"}, all: true, want: []string{"linux/amd64", "linux/arm64"}},
		{name: "another", platform: "linux/s390x", listed: []string{"linux/amd64"}, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, s := oneService(types.ServiceConfig{WorkloadSpec: types.WorkloadSpec{Build: &types.BuildConfig{Platforms: test.listed}}})
			s.Platform = test.platform
			p.Environment[defaultPlatformEnvName] = test.byEnv
			spec, err := NewBuildSpec(p, s, BuildOptions{AllPlatforms: test.all})
			if (err != nil) != test.fails || !slices.Equal(spec.Platforms, test.want) {
				t.Errorf("got %v, %v", spec.Platforms, err)
			}
		})
	}
}

func TestBuildFlags(t *testing.T) {
	p, s := oneService(types.ServiceConfig{WorkloadSpec: types.WorkloadSpec{Build: &types.BuildConfig{
		Args: types.MappingWithEquals{"A": ptr("file"), "B": nil, "C": nil},
		SSH:  types.SSHConfig{{ID: "default"}, {ID: "key", Path: "/old"}},
	}}})
	p.Environment["B"] = "env"
	spec, err := NewBuildSpec(p, s, BuildOptions{
		NoCache: true, Pull: true, Push: true, Args: map[string]*string{"A": ptr("flag")}, Proxy: map[string]string{"A": "no", "HTTP_PROXY": "p"},
		SSH: []string{"key=/new"}, Provenance: "mode=max", SBOM: "true",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := spec.Config
	if *got.Args["A"] != "flag" || *got.Args["B"] != "env" || got.Args["C"] != nil || *got.Args["HTTP_PROXY"] != "p" {
		t.Errorf("arguments %v", got.Args)
	}
	if want := (types.SSHConfig{{ID: "default"}, {ID: "key", Path: "/new"}}); !slices.Equal(got.SSH, want) {
		t.Errorf("ssh %v", got.SSH)
	}
	if !spec.NoCache || !spec.Pull || !spec.Push || got.Provenance != "mode=max" || got.SBOM != "true" {
		t.Errorf("spec %+v", spec)
	}
	if s.Build.Args["B"] != nil || s.Build.Labels != nil {
		t.Error("the service was changed")
	}
	if _, err := NewBuildSpec(p, types.ServiceConfig{Name: "app"}, BuildOptions{}); err == nil {
		t.Error("built a service without build section")
	}
}

func TestCheckNamesPlaces(t *testing.T) {
	files := convertFiles(t)
	err := Check(loadFile(t, files["newer"], nil))
	if err == nil {
		t.Fatal("nothing refused")
	}
	for _, want := range []string{
		`newer.yaml:6: service "masked": umask: `,
		`newer.yaml:18: service "provided": provider: `, `newer.yaml:24: service "socket": use_api_socket: `,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if err := Check(loadFile(t, files["basic"], nil)); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, test := range []struct {
		restart string
		deploy  *types.RestartPolicy
		want    container.RestartPolicy
	}{
		{restart: "", want: container.RestartPolicy{}},
		{restart: "no", want: container.RestartPolicy{Name: "no"}},
		{restart: "always", want: container.RestartPolicy{Name: "always"}},
		{restart: "on-failure:3", want: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}},
		{restart: "always", deploy: &types.RestartPolicy{Condition: "none"}, want: container.RestartPolicy{Name: "no"}},
		{deploy: &types.RestartPolicy{Condition: "any", MaxAttempts: ptr(uint64(2))}, want: container.RestartPolicy{Name: "always"}},
		{deploy: &types.RestartPolicy{Condition: "on-failure", MaxAttempts: ptr(uint64(2))}, want: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}},
		{deploy: &types.RestartPolicy{}, want: container.RestartPolicy{}},
	} {
		p, s := oneService(types.ServiceConfig{Restart: test.restart})
		if test.deploy != nil {
			s.Deploy = &types.DeployConfig{RestartPolicy: test.deploy}
		}
		spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 1})
		if err != nil || spec.Host.RestartPolicy != test.want {
			t.Errorf("%q, %v: got %v, %v, want %v", test.restart, test.deploy, spec.Host, err, test.want)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		dir, file string
		want      bool
	}{
		{"/run", "/run/secrets/a", true}, {"/run/", "/run", true}, {"/run", "/running/a", false}, {"/", "/a", true}, {"/a/b", "/a", false},
	} {
		if got := within(test.dir, test.file); got != test.want {
			t.Errorf("within(%q, %q) = %t", test.dir, test.file, got)
		}
	}
}

func TestNotOursToCreate(t *testing.T) {
	p := &types.Project{Name: "p", Networks: types.Networks{"x": {External: true}}, Volumes: types.Volumes{"x": {External: true}}}
	for _, key := range []string{"x", "none"} {
		if _, err := NewNetworkSpec(p, key); err == nil {
			t.Errorf("network %s: no error", key)
		}
		if _, err := NewVolumeSpec(p, key); err == nil {
			t.Errorf("volume %s: no error", key)
		}
	}
}

func TestBadPools(t *testing.T) {
	for field, pool := range map[string]types.IPAMPool{
		"subnet": {Subnet: "172.28.0.0"}, "gateway": {Gateway: "x"}, "ip_range": {IPRange: "x"}, "aux_addresses.a": {AuxiliaryAddresses: types.Mapping{"a": "x"}},
	} {
		p := &types.Project{Name: "p", Networks: types.Networks{"n": {Ipam: types.IPAMConfig{Config: []*types.IPAMPool{&pool}}}}}
		if _, err := NewNetworkSpec(p, "n"); err == nil || !strings.Contains(err.Error(), "networks.n.ipam.config.0."+field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
}

func TestOnWindowsPathsStayWhole(t *testing.T) {
	if runtime.GOOS != "windows" {
		v := types.ServiceVolumeConfig{Type: "bind", Source: `C:\Users\me`, Target: "/me"}
		c := conversion{p: &types.Project{WorkingDir: "/srv"}}
		bind, _, err := c.volume(0, v)
		if err != nil || bind != `C:\Users\me:/me:rw` {
			t.Errorf("got %q, %v", bind, err)
		}
	}
}
