// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// projectDir is where the projects of testdata/convert pretend to be, so that paths are the same everywhere.
const projectDir = "/srv/app"

// testEnvironment is what the projects of testdata are loaded with.
var testEnvironment = map[string]string{"HOME": "/root", "FROM_ENV": "yes", "TOKEN": "s3cret", "PWD": projectDir}

// convertFiles lists the Compose files of testdata/convert by name.
func convertFiles(t *testing.T) map[string]string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the paths in these files are those of unix")
	}
	paths, err := filepath.Glob("testdata/convert/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no files in testdata/convert", err)
	}
	files := map[string]string{}
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(path), ".yaml")] = abs
	}
	return files
}

func loadFile(t *testing.T, file string, change func(*LoadOptions)) *types.Project {
	t.Helper()
	o := LoadOptions{WorkingDir: filepath.Dir(file), ProjectDir: projectDir, Files: []string{file}, Environment: testEnvironment}
	if change != nil {
		change(&o)
	}
	p, err := Load(context.Background(), o)
	if err != nil {
		t.Fatalf("load %s: %v", filepath.Base(file), err)
	}
	return p
}

// TestServiceHash compares our hashes with those that docker compose v5.0.2 gave for the same files. With -update they are
// taken from docker compose again.
func TestServiceHash(t *testing.T) {
	const golden = "testdata/hashes.golden"
	files := convertFiles(t)
	if *update {
		var b bytes.Buffer
		for _, name := range unionKeys(files, nil) {
			out, err := composeHashes(t, files[name])
			if err != nil {
				t.Logf("%s: left out: %v", name, err)
			}
			for _, line := range out {
				fmt.Fprintln(&b, name, line)
			}
		}
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	projects := map[string]*types.Project{}
	for line := range strings.Lines(string(want)) {
		var name, service, hash string
		if _, err := fmt.Sscan(line, &name, &service, &hash); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if projects[name] == nil {
			// docker compose's `config --hash` does not resolve the environment, though `up` does.
			projects[name] = loadFile(t, files[name], func(o *LoadOptions) { o.NoEnvResolution = true })
		}
		got, err := ServiceHash(projects[name], projects[name].Services[service])
		if err != nil {
			t.Fatal(err)
		}
		if got != hash {
			t.Errorf("%s: service %s: hash %s, docker compose has %s", name, service, got, hash)
		}
	}
}

// TestServiceHashAgainstDockerCompose does the same with the docker-compose that is installed.
func TestServiceHashAgainstDockerCompose(t *testing.T) {
	for name, file := range convertFiles(t) {
		t.Run(name, func(t *testing.T) {
			lines, err := composeHashes(t, file)
			if err != nil {
				t.Skipf("docker compose does not load it: %v", err)
			}
			p := loadFile(t, file, func(o *LoadOptions) { o.NoEnvResolution = true })
			for _, line := range lines {
				service, want, _ := strings.Cut(line, " ")
				got, err := ServiceHash(p, p.Services[service])
				if err != nil || got != want {
					t.Errorf("service %s: hash %s (%v), docker compose has %s", service, got, err, want)
				}
			}
		})
	}
}

// composeHashes asks docker compose for the hashes of a file's services: "NAME HASH". It skips the test where there is none.
func composeHashes(t *testing.T, file string) ([]string, error) {
	t.Helper()
	program := os.Getenv("DEV_TEST_COMPOSE")
	if program == "" {
		var err error
		if program, err = exec.LookPath("docker-compose"); err != nil {
			t.Skip("no docker-compose in PATH, and DEV_TEST_COMPOSE names none")
		}
	}
	cmd := exec.CommandContext(t.Context(), program, "--project-directory", projectDir, "-f", file, "config", "--hash", "*")
	for k, v := range testEnvironment {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New(strings.TrimSpace(stderr.String()))
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

func TestHashOrderIsCompleteForWhatIsHashed(t *testing.T) {
	b, err := json.Marshal(map[string]string{"zzz": "", "aaa": "", "image": "x", "annotations": ""})
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	want := `{"annotations":"","image":"x","aaa":"","zzz":""}`
	if got := string(inHashOrder(keys)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(hashOrder) != len(slices.Compact(slices.Sorted(slices.Values(hashOrder)))) {
		t.Error("a key stands twice in hashOrder")
	}
}

func TestHashLeavesOutWhatDoesNotMakeStale(t *testing.T) {
	p := &types.Project{Name: "p", Environment: types.Mapping{}}
	replicas, scale := 3, 3
	plain := types.ServiceConfig{Name: "a", ContainerSpec: types.ContainerSpec{Image: "x"}, Deploy: &types.DeployConfig{}}
	other := plain
	other.Build = &types.BuildConfig{Context: "."}
	other.PullPolicy = "always"
	other.Scale = &scale
	other.Deploy = &types.DeployConfig{Replicas: &replicas}
	other.DependsOn = types.DependsOnConfig{"b": {}}
	other.Profiles = []string{"x"}
	a, errA := ServiceHash(p, plain)
	b, errB := ServiceHash(p, other)
	if a != b || errA != nil || errB != nil {
		t.Errorf("hashes differ: %s %s (%v %v)", a, b, errA, errB)
	}
	if other.Deploy.Replicas == nil {
		t.Error("the service was changed")
	}
	p.Environment[defaultPlatformEnvName] = "linux/arm64"
	if c, _ := ServiceHash(p, other); c == a {
		t.Error("DOCKER_DEFAULT_PLATFORM does not count for a service that is built")
	}
	if c, _ := ServiceHash(p, plain); c != a {
		t.Error("DOCKER_DEFAULT_PLATFORM counts for a service that is not built")
	}
}

// docker compose hashes networks and volumes as their plain JSON, a volume with its driver filled in.
func TestResourceHashes(t *testing.T) {
	n, err := NetworkHash(types.NetworkConfig{Name: "p_default"})
	if err != nil || n != hashBytes([]byte(`{"name":"p_default","ipam":{}}`)) {
		t.Errorf("network hash %s, %v", n, err)
	}
	v, err := VolumeHash(types.VolumeConfig{Name: "p_data"})
	if err != nil || v != hashBytes([]byte(`{"name":"p_data","driver":"local"}`)) {
		t.Errorf("volume hash %s, %v", v, err)
	}
}
