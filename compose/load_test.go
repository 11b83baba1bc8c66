// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

// writeFiles makes a folder with the files, whose names may have folders in them.
func writeFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const oneWeb = "services:\n  web:\n    image: web\n"

// TestFindAndName checks which files a project is read from and how it is called, and that docker compose, if there is one, says the same.
func TestFindAndName(t *testing.T) {
	for _, test := range []struct {
		name     string
		files    map[string]string
		in       string // folder the user stands in
		o        LoadOptions
		env      map[string]string
		project  string
		services []string
		from     []string // files, relative
		warns    string
	}{
		{
			name: "folder", files: map[string]string{"My_App.v2/compose.yaml": oneWeb}, in: "My_App.v2",
			project: "my_appv2", services: []string{"web"}, from: []string{"My_App.v2/compose.yaml"},
		},
		{
			name: "above", files: map[string]string{"app/compose.yaml": oneWeb, "app/src/deep/x": ""}, in: "app/src/deep",
			project: "app", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "old name", files: map[string]string{"app/docker-compose.yml": oneWeb}, in: "app",
			project: "app", services: []string{"web"}, from: []string{"app/docker-compose.yml"},
		},
		{
			name: "several names", files: map[string]string{"app/docker-compose.yml": oneWeb, "app/compose.yml": "services: {other: {image: x}}"}, in: "app",
			project: "app", services: []string{"other"}, from: []string{"app/compose.yml"}, warns: "compose.yml: used although there are also docker-compose.yml beside it",
		},
		{
			name: "override", files: map[string]string{"app/compose.yaml": oneWeb, "app/compose.override.yaml": "services: {more: {image: x}}"}, in: "app",
			project: "app", services: []string{"more", "web"}, from: []string{"app/compose.yaml", "app/compose.override.yaml"},
		},
		{
			name: "named in the file", files: map[string]string{"app/compose.yaml": "name: ${N:-fallback}\n" + oneWeb}, in: "app",
			project: "fallback", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "named by an override", files: map[string]string{"app/compose.yaml": "name: a\n" + oneWeb, "app/compose.override.yaml": "name: b\n"}, in: "app",
			project: "b", services: []string{"web"}, from: []string{"app/compose.yaml", "app/compose.override.yaml"},
		},
		{
			name: "named in the file with the environment", files: map[string]string{"app/compose.yaml": "name: ${N:-fallback}\n" + oneWeb}, in: "app",
			env: map[string]string{"N": "given"}, project: "given", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "-p wins", files: map[string]string{"app/compose.yaml": "name: a\n" + oneWeb}, in: "app", o: LoadOptions{ProjectName: "flag"},
			env: map[string]string{"COMPOSE_PROJECT_NAME": "env"}, project: "flag", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "the environment wins over the file", files: map[string]string{"app/compose.yaml": "name: a\n" + oneWeb}, in: "app",
			env: map[string]string{"COMPOSE_PROJECT_NAME": "env"}, project: "env", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: ".env names the project", files: map[string]string{"app/compose.yaml": oneWeb, "app/.env": "COMPOSE_PROJECT_NAME=dot\n"}, in: "app",
			project: "dot", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: ".env names the files", files: map[string]string{
				"app/.env": "COMPOSE_FILE=a.yaml;sub/b.yaml\nCOMPOSE_PATH_SEPARATOR=;\n", "app/a.yaml": oneWeb, "app/sub/b.yaml": "services: {b: {image: x}}",
			}, in: "app", project: "app", services: []string{"b", "web"}, from: []string{"app/a.yaml", "app/sub/b.yaml"},
		},
		{
			name: ".env not read", files: map[string]string{"app/compose.yaml": oneWeb, "app/.env": "COMPOSE_PROJECT_NAME=dot\n"}, in: "app",
			env: map[string]string{"COMPOSE_DISABLE_ENV_FILE": "1"}, project: "app", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "COMPOSE_FILE", files: map[string]string{"app/x.yaml": oneWeb, "here/y": ""}, in: "here", env: map[string]string{"COMPOSE_FILE": "../app/x.yaml"},
			project: "app", services: []string{"web"}, from: []string{"app/x.yaml"},
		},
		{
			name: "-f elsewhere, with its .env", files: map[string]string{"app/x.yaml": "services: {web: {image: \"web:${TAG}\", container_name: \"web${TAG}\"}}", "app/.env": "TAG=1\n", "here/.env": "TAG=2\n"},
			in: "here", o: LoadOptions{Files: []string{"../app/x.yaml"}}, project: "app", services: []string{"web"}, from: []string{"app/x.yaml"},
		},
		{
			name: "--project-directory", files: map[string]string{"app/x.yaml": oneWeb, "dir/y": ""}, in: "app", o: LoadOptions{Files: []string{"x.yaml"}, ProjectDir: "../dir"},
			project: "dir", services: []string{"web"}, from: []string{"app/x.yaml"},
		},
		{
			name: "--env-file", files: map[string]string{"app/compose.yaml": oneWeb, "app/.env": "COMPOSE_PROJECT_NAME=dot\n", "app/my.env": "OTHER=1\n"}, in: "app",
			o: LoadOptions{EnvFiles: []string{"my.env"}}, project: "app", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "COMPOSE_ENV_FILES", files: map[string]string{"app/compose.yaml": oneWeb, "app/my.env": "COMPOSE_PROJECT_NAME=mine\n"}, in: "app",
			env: map[string]string{"COMPOSE_ENV_FILES": "my.env"}, project: "mine", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "profiles off", files: map[string]string{"app/compose.yaml": oneWeb + "  debug:\n    image: x\n    profiles: [d]\n"}, in: "app",
			project: "app", services: []string{"web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "--profile", files: map[string]string{"app/compose.yaml": oneWeb + "  debug:\n    image: x\n    profiles: [d]\n"}, in: "app", o: LoadOptions{Profiles: []string{"d"}},
			project: "app", services: []string{"debug", "web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "COMPOSE_PROFILES", files: map[string]string{"app/compose.yaml": oneWeb + "  debug:\n    image: x\n    profiles: [d]\n"}, in: "app", env: map[string]string{"COMPOSE_PROFILES": "x, d"},
			project: "app", services: []string{"debug", "web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "include and extends", files: map[string]string{
				"app/compose.yaml":    "include: [db/compose.yaml]\nservices:\n  web:\n    extends: {file: base/base.yaml, service: base}\n",
				"app/db/compose.yaml": "services: {db: {image: \"db:${V}\", volumes: [\"./data:/data\"]}}", "app/db/.env": "V=7\n",
				"app/base/base.yaml": "services: {base: {image: base, build: .}}",
			}, in: "app", project: "app", services: []string{"db", "web"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "reset and override", files: map[string]string{
				"app/compose.yaml":          "services: {web: {image: web, ports: [\"80:80\"], command: [a], environment: {A: b}}}",
				"app/compose.override.yaml": "services: {web: {ports: !override [\"81:80\"], environment: !reset {}}}",
			}, in: "app", project: "app", services: []string{"web"}, from: []string{"app/compose.yaml", "app/compose.override.yaml"},
		},
		{
			name: "anchors and merges", files: map[string]string{"app/compose.yaml": "x-base: &base {image: web, restart: always}\nservices:\n  a: *base\n  b: {<<: *base, image: other}\n"}, in: "app",
			project: "app", services: []string{"a", "b"}, from: []string{"app/compose.yaml"},
		},
		{
			name: "obsolete version", files: map[string]string{"app/compose.yaml": "version: \"3.8\"\n" + oneWeb}, in: "app",
			project: "app", services: []string{"web"}, from: []string{"app/compose.yaml"}, warns: "compose.yaml:1: version: obsolete and ignored",
		},
		{
			name: "unset variable", files: map[string]string{"app/compose.yaml": oneWeb + "    labels:\n      a: ${X:-$Y}${Z-}\n      b: $${NOT}\n"}, in: "app",
			project: "app", services: []string{"web"}, from: []string{"app/compose.yaml"}, warns: `compose.yaml:5: the variable "Y" is not set`,
		},
		{
			name: "unset variable in an included file", files: map[string]string{"app/compose.yaml": "include: [{path: [a.yaml]}]\n", "app/a.yaml": "services:\n  a:\n    image: x:$TAG\n"}, in: "app",
			project: "app", services: []string{"a"}, from: []string{"app/compose.yaml"}, warns: `a.yaml:3: the variable "TAG" is not set`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeFiles(t, test.files)
			o := test.o
			o.WorkingDir = filepath.Join(dir, test.in)
			o.Environment = map[string]string{"HOME": dir, "PATH": os.Getenv("PATH")}
			maps.Copy(o.Environment, test.env)
			var warnings []string
			o.Warn = func(w Warning) { warnings = append(warnings, w.String()) }
			before := maps.Clone(o.Environment)
			p, err := Load(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(before, o.Environment) {
				t.Error("the environment was changed")
			}
			if p.Name != test.project || !slices.Equal(p.ServiceNames(), test.services) {
				t.Errorf("project %q with %v, want %q with %v", p.Name, p.ServiceNames(), test.project, test.services)
			}
			var want []string
			for _, f := range test.from {
				want = append(want, filepath.Join(dir, filepath.FromSlash(f)))
			}
			if !slices.Equal(p.ComposeFiles, want) {
				t.Errorf("files %v, want %v", p.ComposeFiles, want)
			}
			all := strings.Join(warnings, "\n")
			if !strings.Contains(all, test.warns) || test.warns == "" && all != "" {
				t.Errorf("warnings %q, want %q", all, test.warns)
			}
			compareWithDockerCompose(t, o, p)
		})
	}
}

// compareWithDockerCompose asks docker compose, if there is one, for the services' hashes: they hold all that was read, the project's folder in
// paths and its name in the networks.
func compareWithDockerCompose(t *testing.T, o LoadOptions, p *types.Project) {
	t.Helper()
	program := os.Getenv("DEV_TEST_COMPOSE")
	if program == "" {
		var err error
		if program, err = exec.LookPath("docker-compose"); err != nil {
			return
		}
	}
	run := func(args ...string) string {
		var flags []string
		for _, f := range o.Files {
			flags = append(flags, "-f", f)
		}
		for _, f := range o.Profiles {
			flags = append(flags, "--profile", f)
		}
		for _, f := range o.EnvFiles {
			flags = append(flags, "--env-file", f)
		}
		if o.ProjectName != "" {
			flags = append(flags, "-p", o.ProjectName)
		}
		if o.ProjectDir != "" {
			flags = append(flags, "--project-directory", o.ProjectDir)
		}
		cmd := exec.CommandContext(t.Context(), program, append(flags, args...)...)
		cmd.Dir = o.WorkingDir
		for k, v := range o.Environment {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("docker compose: %v", err)
		}
		return string(out)
	}
	if config := run("config", "--no-interpolate", "--format", "json"); !strings.Contains(run("config"), "name: "+p.Name+"\n") {
		t.Errorf("docker compose has another name for the project: %s", config)
	}
	o.NoEnvResolution = true
	p, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, name := range p.ServiceNames() {
		hash, err := ServiceHash(p, p.Services[name])
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, name+" "+hash)
	}
	if got, want := strings.Join(ours, "\n"), strings.TrimSpace(run("config", "--hash", "*")); got != want {
		t.Errorf("hashes:\n%s\ndocker compose has:\n%s", got, want)
	}
}

func TestLoadFromStdin(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app/x": ""})
	p, err := Load(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "app"), Files: []string{"-"}, Stdin: strings.NewReader(oneWeb)})
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "app" || p.ComposeFiles[0] != "-" || p.Services["web"].CustomLabels[LabelConfigFiles] != "-" {
		t.Errorf("got %q from %v", p.Name, p.ComposeFiles)
	}
	if _, err := Load(t.Context(), LoadOptions{WorkingDir: dir, Files: []string{"-"}}); err == nil {
		t.Error("no standard input, and no error")
	}
}

func TestLoadSelectsServices(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"app/compose.yaml": "services:\n  web: {image: x, depends_on: [db], networks: [n]}\n  db: {image: x}\n  other: {image: x, env_file: gone.env, volumes: [\"v:/v\"]}\n" +
			"  tool: {image: x, profiles: [tools]}\nnetworks: {n: {}, unused: {}}\nvolumes: {v: {}}\n",
	})
	o := LoadOptions{WorkingDir: filepath.Join(dir, "app"), Services: []string{"web", "tool"}}
	p, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"db", "tool", "web"}; !slices.Equal(p.ServiceNames(), want) {
		t.Errorf("services %v, want %v", p.ServiceNames(), want)
	}
	if want := []string{"default", "n"}; !slices.Equal(p.NetworkNames(), want) || len(p.Volumes) != 0 {
		t.Errorf("networks %v, want %v; volumes %v", p.NetworkNames(), want, p.VolumeNames())
	}
	o.AllResources = true
	if p, err = Load(t.Context(), o); err != nil || len(p.Networks) != 3 || len(p.Volumes) != 1 {
		t.Errorf("all resources: %v %v, %v", p.NetworkNames(), p.VolumeNames(), err)
	}
	o.Services = []string{"wbe"}
	_, err = Load(t.Context(), o)
	var hint interface{ Hint() string }
	if err == nil || err.Error() != "no such service: wbe" || !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "web") {
		t.Errorf("error %v", err)
	}
}

func TestLoadLabels(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app/compose.yaml": oneWeb, "app/compose.override.yaml": "services: {web: {labels: {a: b}}}", "app/my.env": "A=1\n"})
	app := filepath.Join(dir, "app")
	p, err := Load(t.Context(), LoadOptions{WorkingDir: app, EnvFiles: []string{"my.env"}})
	if err != nil {
		t.Fatal(err)
	}
	want := types.Labels{
		LabelProject: "app", LabelService: "web", LabelVersion: labelVersion, LabelWorkingDir: app, LabelOneOff: "False",
		LabelConfigFiles: filepath.Join(app, "compose.yaml") + "," + filepath.Join(app, "compose.override.yaml"),
		LabelEnvFiles:    filepath.Join(app, "my.env"),
	}
	if got := p.Services["web"].CustomLabels; !maps.Equal(got, want) {
		t.Errorf("labels %v, want %v", got, want)
	}
}

func TestLoadEnvFiles(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"app/compose.yaml": "services:\n  web:\n    image: x\n    environment: {A: own, FROM: }\n    env_file:\n      - a.env\n      - {path: raw.env, format: raw}\n      - {path: none.env, required: false}\n",
		"app/a.env":        "A=file\nB=${FROM}-x\nC='q'\n",
		"app/raw.env":      "# comment\n\nRAW='$B'\nFROM\nBARE\n",
	})
	o := LoadOptions{WorkingDir: filepath.Join(dir, "app"), Environment: map[string]string{"FROM": "here"}}
	p, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := p.Services["web"].Environment.ToMapping()
	want := types.Mapping{"A": "own", "B": "here-x", "C": "q", "RAW": "'$B'", "FROM": "here"}
	if !maps.Equal(got, want) || p.Services["web"].EnvFiles != nil {
		t.Errorf("environment %v, want %v", got, want)
	}
	o.NoEnvResolution = true
	if p, err = Load(t.Context(), o); err != nil || len(p.Services["web"].EnvFiles) != 3 {
		t.Errorf("unresolved: %v, %v", p.Services["web"].EnvFiles, err)
	}
}

func TestModelWithoutInterpolation(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app/compose.yaml": "services: {web: {image: \"x:${TAG}\"}}"})
	m, err := Model(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "app"), NoInterpolate: true})
	if err != nil {
		t.Fatal(err)
	}
	web := m["services"].(map[string]any)["web"].(map[string]any)
	if web["image"] != "x:${TAG}" || m["name"] != "app" {
		t.Errorf("got %v", m)
	}
}

func TestCompatibilityNames(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app/compose.yaml": oneWeb})
	for _, o := range []LoadOptions{{Compatibility: true}, {Environment: map[string]string{"COMPOSE_COMPATIBILITY": "1"}}} {
		o.WorkingDir = filepath.Join(dir, "app")
		p, err := Load(t.Context(), o)
		if err != nil || ContainerName(p, p.Services["web"], 1) != "app_web_1" {
			t.Errorf("%v: %v", o.Compatibility, err)
		}
	}
}

func TestSymbolicLinkNamesTheProject(t *testing.T) {
	dir := writeFiles(t, map[string]string{"real/compose.yaml": oneWeb})
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "real"), link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	var warned string
	p, err := Load(t.Context(), LoadOptions{WorkingDir: link, Warn: func(w Warning) { warned = w.String() }})
	if err != nil || p.Name != "link" || !strings.Contains(warned, "symbolic link") {
		t.Errorf("name %q, warned %q, %v", p.Name, warned, err)
	}
}

// TestLoadErrors: what is wrong in a file is told with its line.
func TestLoadErrors(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"syntax", "services:\n  web:\n    image: x\n   bad: y\n", "compose.yaml:4: invalid YAML"},
		{"tab", "services:\n\tweb: {}\n", "compose.yaml:2: invalid YAML"},
		{"key twice", "services:\n  web:\n    image: x\n    image: y\n", `compose.yaml:4: invalid YAML: mapping key "image" already defined at line 3`},
		{"unknown field", oneWeb + "    imagee: y\n", `compose.yaml:4: services.web.imagee: there is no such field; did you mean "image"?`},
		{"unknown section", oneWeb + "servces: {}\n", `compose.yaml:4: servces: there is no such field; did you mean "services"?`},
		{"unknown and far", oneWeb + "    foo: y\n", "compose.yaml:4: services.web.foo: there is no such field"},
		{"wrong type", oneWeb + "    ports: 80\n", "compose.yaml:4: services.web.ports: must be a list"},
		{"service with a dot", "services:\n  web.a:\n    image: x\n    ports: 80\n", "compose.yaml:4: services.web.a.ports: must be a list"},
		{"required variable", oneWeb + "    labels:\n      a: ${TAG:?set it}\n", "compose.yaml:5: services.web.labels.a: required variable TAG is missing a value: set it"},
		{"template", oneWeb + "    command: echo ${oops\n", "compose.yaml:4: invalid interpolation format for services.web.command."},
		{"cast", oneWeb + "    privileged: \"${PWD}\"\n", "compose.yaml:4: services.web.privileged: invalid boolean"},
		{"duration", oneWeb + "    stop_grace_period: soon\n", `compose.yaml:4: services.web.stop_grace_period: time: invalid duration "soon"`},
		{"port", oneWeb + "    ports:\n      - \"80\"\n      - \"http:80\"\n", "compose.yaml:6: invalid hostPort: http"},
		{"network", oneWeb + "    networks:\n      - a\n      - nope\nnetworks: {a: {}}\n", `compose.yaml:6: service "web" refers to undefined network nope`},
		{"volume", oneWeb + "    volumes: [\"nope:/x\"]\n", `compose.yaml:4: service "web" refers to undefined volume nope`},
		{"secret", oneWeb + "    secrets: [nope]\n", `compose.yaml:4: service "web" refers to undefined secret nope`},
		{"dependency", oneWeb + "    depends_on:\n      nope:\n        condition: service_healthy\n", `compose.yaml:5: service "web" depends on undefined service "nope"`},
		{"cycle", "services:\n  a: {image: x, depends_on: [b]}\n  b:\n    image: x\n    depends_on: [a]\n", "dependency cycle detected"},
		{"extends", "services:\n  web:\n    extends: {service: nope}\n", `compose.yaml:2: cannot extend service "web"`},
		{"extends in a circle", "services:\n  a: {extends: b}\n  b: {extends: a}\n", "Circular reference"},
		{"env_file", oneWeb + "    env_file: nope.env\n", "compose.yaml:4: env file"},
		{"include", "include: [nope.yaml]\n", "compose.yaml:1: open"},
		{"include itself", "include: [compose.yaml]\n", "include cycle detected"},
		{"include from afar", "include:\n  - oci://example.org/x\n", `compose.yaml:2: read compose file "oci://example.org/x": nothing can be fetched from such an address`},
		{"conflict", "services: {}\nvolumes:\n  d:\n    external: true\n    driver: foo\n", "compose.yaml:3: volumes.d: conflicting parameters"},
		{"limits", oneWeb + "    mem_limit: 1g\n    deploy: {resources: {limits: {memory: 2g}}}\n", "compose.yaml:2: services.web: can't set distinct values"},
		{"neither image nor build", "services:\n  web:\n    command: x\n", `compose.yaml:2: service "web" has neither an image nor a build`},
		{"missing value", oneWeb + "    environment: {A: }\n    build:\n      context: .\n      additional_contexts:\n        a:\n", "compose.yaml:8: a value is missing or of the wrong kind"},
		{"empty", "", "compose.yaml: empty compose file"},
		{"a list", "- a\n", "compose.yaml: top-level object must be a mapping"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"app/compose.yaml": test.file})
			_, err := Load(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "app")})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v\nwant %s", err, test.want)
			}
			if test.name != "template" && err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

func TestLoadHints(t *testing.T) {
	dir := writeFiles(t, map[string]string{"empty/x": "", "app/compose.yaml": oneWeb, "___/compose.yaml": oneWeb})
	for _, test := range []struct {
		in, want, hint string
		o              LoadOptions
	}{
		{in: "empty", want: "no compose file found in " + filepath.Join(dir, "empty"), hint: "create a compose.yaml"},
		{in: "app", want: `invalid project name "My App"`, hint: "myapp", o: LoadOptions{ProjectName: "My App"}},
		{in: "app", want: `nothing can be fetched from such an address`, hint: "name a git repository", o: LoadOptions{Files: []string{"https://github.com/a/b.yaml"}}},
		{in: "app", want: "read compose file", o: LoadOptions{Files: []string{"gone.yaml"}}},
		{in: "app", want: "env file", o: LoadOptions{EnvFiles: []string{"gone.env"}}},
		{in: "app", want: `"maybe" is neither true nor false`, o: LoadOptions{Environment: map[string]string{"COMPOSE_DISABLE_ENV_FILE": "maybe"}}},
	} {
		test.o.WorkingDir = filepath.Join(dir, test.in)
		_, err := Load(t.Context(), test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %s", err, test.want)
			continue
		}
		var hint interface{ Hint() string }
		if test.hint != "" && (!errors.As(err, &hint) || !strings.Contains(hint.Hint(), test.hint)) {
			t.Errorf("%v: no hint with %q", err, test.hint)
		}
	}
	_, err := Load(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "empty")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	if _, err := Load(t.Context(), LoadOptions{WorkingDir: "relative"}); err == nil {
		t.Error("a relative working directory was taken")
	}
	if _, err := Load(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "___")}); err == nil || !strings.Contains(err.Error(), "name") {
		t.Errorf("a folder that gives no name: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, LoadOptions{WorkingDir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWithoutVersion(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"version: \"3.8\"\na: b\n", "              \na: b\n"},
		{"# x\n\n---\nversion: 3\r\na: b", "# x\n\n---\n          \r\na: b"},
		{"version: 3", "          "},
		{"a: b\nversion: 3\n", "a: b\nversion: 3\n"},
		{"version: >-\n  3\n", "version: >-\n  3\n"},
		{"a: b\n", "a: b\n"},
	} {
		if got := string(withoutVersion([]byte(test.file))); got != test.want {
			t.Errorf("%q: got %q, want %q", test.file, got, test.want)
		}
	}
}

func TestOldBooleans(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app/compose.yaml": oneWeb + "    privileged: \"yes\"\n    tty: \"true\"\n"})
	var warned []string
	p, err := Load(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "app"), Warn: func(w Warning) { warned = append(warned, w.String()) }})
	if err != nil || !p.Services["web"].Privileged || !p.Services["web"].Tty {
		t.Fatalf("%v, %v", p, err)
	}
	if len(warned) != 1 || !strings.Contains(warned[0], `"yes" is read as true`) {
		t.Errorf("warnings %q", warned)
	}
}

// TestSubstitute compares our substitution with compose-go's own.
func TestSubstitute(t *testing.T) {
	env := map[string]string{"A": "1", "LONG_name9": "2", "E": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for _, text := range substitutions {
		var u unsetVariables
		got, err := u.substitute(text, lookup)
		want, wantErr := template.SubstituteWithOptions(text, lookup, template.WithoutLogging)
		if got != want && wantErr == nil || (err != nil) != (wantErr != nil) {
			t.Errorf("%q: got %q, %v; compose-go gives %q, %v", text, got, err, want, wantErr)
		}
	}
}

var substitutions = []string{
	"", "plain", "$A", "${A}", "$$A", "$$$A", "$A$A", "${A}${E}x", "x$LONG_name9-y", "${B:-d}", "${B-d}", "${E:-d}", "${E-d}", "${A:+x}", "${B:+x}", "${B+x}",
	"${A:?m}", "${B:?m}", "${B?}", "${B:-${A}}", "${B:-${C:-$A}}z", "${B:-a}b${C:-c}", "a ${B:-{x}} b", "${", "${}", "${A", "$", "x$", "$ A", "$(cmd)", "${A:-}}",
	"${B:-a\nb}", "${1}", "$1", "${A!}", "${B:-$$}", "${B:-http://x:80/?a=b}", "{{.A}} ${A}", "${A} }", "${B:-}", "$_", "${B:-{\"a\":1}}",
}

// FuzzSubstitute does the same with whatever comes.
func FuzzSubstitute(f *testing.F) {
	for _, text := range substitutions {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "$") > 20 || strings.ContainsAny(text, "\u017f\u212a") { // the letters that fold to s and k
			t.Skip()
		}
		lookup := func(name string) (string, bool) {
			if len(name) == 1 || name[0] == 'x' {
				return "", false
			}
			return strings.ToLower(name), true
		}
		var u unsetVariables
		got, err := u.substitute(text, lookup)
		want, wantErr := template.SubstituteWithOptions(text, lookup, template.WithoutLogging)
		if got != want && wantErr == nil || (err != nil) != (wantErr != nil) {
			t.Errorf("%q: got %q, %v; compose-go gives %q, %v", text, got, err, want, wantErr)
		}
	})
}

func TestOneEditApart(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{{"image", "imagee", true}, {"imgae", "image", true}, {"image", "umage", true}, {"image", "mage", true}, {"image", "imag", true}, {"image", "img", false}, {"a", "b", true}, {"", "ab", false}} {
		if got := oneEditApart(test.a, test.b); got != test.want {
			t.Errorf("%q, %q: %t", test.a, test.b, got)
		}
	}
}

// TestBombs: files made to blow up are refused, or read, soon and in little memory.
func TestBombs(t *testing.T) {
	aliases := "x-a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		item := "*" + string(c-1)
		aliases += "x-" + string(c) + ": &" + string(c) + " [" + strings.Repeat(item+", ", 9) + item + "]\n"
	}
	chain := "services:\n"
	for i := range 300 {
		chain += "  s" + strings.Repeat("x", i) + ": {extends: s" + strings.Repeat("x", i+1) + "}\n"
	}
	deep := strings.Repeat("{a: ", 5000) + "1" + strings.Repeat("}", 5000)
	for name, file := range map[string]string{
		"aliases": aliases + oneWeb, "extends": chain, "depth": "x-deep: " + deep + "\n" + oneWeb, "flat": "services: {web: {image: x, labels: {a: \"" + strings.Repeat("${A:-b}", 3000) + "\"}}}",
		"braces": "services: {web: {image: \"" + strings.Repeat("${A:-", 2000) + strings.Repeat("}", 2000) + "\"}}",
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"app/compose.yaml": file})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Load(t.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "app")})
			runtime.ReadMemStats(&after)
			t.Logf("%v; %d MiB", err, (after.TotalAlloc-before.TotalAlloc)>>20)
			if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30 {
				t.Errorf("%d MiB allocated", used>>20)
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	var file strings.Builder
	file.WriteString("services:\n")
	for i := range 50 {
		name := "s" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		file.WriteString("  " + name + ":\n    image: busybox\n    command: [sleep, inf]\n    environment: {A: b}\n    ports: [\"80\"]\n    volumes: [\"data:/data\"]\n")
	}
	file.WriteString("volumes: {data: {}}\n")
	dir := writeFiles(b, map[string]string{"app/compose.yaml": file.String()})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(b.Context(), LoadOptions{WorkingDir: filepath.Join(dir, "app")}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzLoad: no Compose file makes loading or converting panic or hang.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/convert/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(strings.ReplaceAll(string(b), "/dev/", "/device/"))
	}
	f.Add("include: [compose.yaml]\nservices: {a: {extends: {service: a, file: compose.yaml}}}")
	f.Add("a: &a [*a]\nservices: *a")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/dev/") || strings.Contains(text, "/proc/") {
			t.Skip("reading such a file may never end")
		}
		dir := writeFiles(t, map[string]string{"compose.yaml": text})
		o := LoadOptions{WorkingDir: dir, ProjectName: "fuzz", Environment: testEnvironment}
		if _, err := Model(t.Context(), o); err != nil {
			_ = err.Error()
		}
		p, err := Load(t.Context(), o)
		if err != nil {
			_ = err.Error()
			return
		}
		_ = Check(p)
		Unsupported(p)
		for _, s := range p.Services {
			if s.GetScale() > 100 {
				return
			}
		}
		for _, s := range p.Services {
			_, _, _ = NewContainerSpec(p, s, ContainerInput{Number: 1})
			_, _ = NewBuildSpec(p, s, BuildOptions{})
			_, _ = FilesLabel(p, s)
			if d := DiffServices(s, s); len(d) != 0 {
				t.Errorf("differs from itself: %v", d)
			}
		}
		for key := range p.Networks {
			_, _ = NewNetworkSpec(p, key)
		}
		for key := range p.Volumes {
			_, _ = NewVolumeSpec(p, key)
		}
	})
}
