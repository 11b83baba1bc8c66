// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

// memory is a cache that counts.
type memory struct {
	program string
	mu      sync.Mutex
	kept    map[string][]byte
	hits    int
}

func newMemory() *memory { return &memory{program: "test", kept: map[string][]byte{}} }

func (m *memory) Program() string { return m.program }

func (m *memory) Get(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept[name] != nil {
		m.hits++
	}
	return m.kept[name]
}

func (m *memory) Put(name string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept[name] = content
}

// loadOutcome is all that a load gives its caller.
type loadOutcome struct {
	p        *types.Project
	warnings []Warning
	err      string
}

func (o loadOutcome) String() string {
	if o.p == nil {
		return o.err
	}
	text, err := o.p.MarshalYAML()
	return fmt.Sprintf("%s%v%s\nenvironment %v\nfiles %v\ndisabled %+v\nwarnings %v", text, err, o.err, o.p.Environment, o.p.ComposeFiles, o.p.DisabledServices, o.warnings)
}

func loadOutcomeOf(t *testing.T, o LoadOptions, cache Cache) loadOutcome {
	t.Helper()
	var out loadOutcome
	o.Cache, o.Warn = cache, func(w Warning) { out.warnings = append(out.warnings, w) }
	p, err := Load(t.Context(), o)
	if out.p = p; err != nil {
		out.err = err.Error()
	}
	slices.SortFunc(out.warnings, func(a, b Warning) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// sameWithCache fails unless a load that may use the cache, and one more, give what one without it gives. It reports whether the cache was used.
func sameWithCache(t *testing.T, what string, o LoadOptions, cache *memory) (used bool) {
	t.Helper()
	for range 2 {
		hits := cache.hits
		got := loadOutcomeOf(t, o, cache)
		want := loadOutcomeOf(t, o, nil)
		// What services that are left out need depends on chance in compose-go.
		for range 30 {
			if reflect.DeepEqual(got, want) {
				break
			}
			want = loadOutcomeOf(t, o, nil)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: with the cache (found there: %t)\n%s\nwithout\n%s", what, cache.hits > hits, got, want)
		}
		used = cache.hits > hits
	}
	return used
}

// TestCacheChangesNothing loads every project there is in the tests' data.
func TestCacheChangesNothing(t *testing.T) {
	for name, file := range convertFiles(t) {
		sameWithCache(t, name, LoadOptions{WorkingDir: filepath.Dir(file), ProjectDir: projectDir, Files: []string{file}, Environment: testEnvironment}, newMemory())
	}
	examples, err := filepath.Glob("../examples/*/compose*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal("no examples", err)
	}
	for _, file := range examples {
		file, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		sameWithCache(t, file, LoadOptions{WorkingDir: filepath.Dir(file), Files: []string{file}}, newMemory())
	}
}

// Every key of the specification comes back from the cache, but those that lead to other files.
func TestCacheKnowsEveryKey(t *testing.T) {
	quiet(t)
	dir, err := filepath.Abs("testdata/conformance")
	if err != nil {
		t.Fatal(err)
	}
	leadOn := []string{"include", "label_file", "develop", "extends"}
	for _, c := range readConformance(t) {
		for _, where := range []section{inService, inPreStart, inJob} {
			text := c.document(t, where)
			file := filepath.Join(t.TempDir(), "compose.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			o := LoadOptions{WorkingDir: dir, ProjectDir: dir, Files: []string{file}, Environment: map[string]string{"FROM_ENV": "content of FROM_ENV"}, AllResources: true}
			if loadOutcomeOf(t, o, nil).err != "" {
				continue // some keys are none of hooks and jobs
			}
			may := !slices.ContainsFunc(leadOn, func(key string) bool { return strings.Contains(text, key+":") }) && !strings.Contains(text, portVariable)
			if used := sameWithCache(t, text, o, newMemory()); may && !used {
				t.Errorf("never kept:\n%s", text)
			}
		}
	}
}

// FuzzCachedLoad: whatever the file, it comes to the same with and without the cache.
func FuzzCachedLoad(f *testing.F) {
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
	f.Add("x-a: [1, 1.5, yes, ~, 2020-01-01, {b: c}]\nservices: {a: {image: $UNSET, environment: {A: , B: ''}}}")
	f.Add("services: {a: {image: a, privileged: 'yes', extends: b}, b: {image: b}}")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/dev/") || strings.Contains(text, "/proc/") {
			t.Skip("reading such a file may never end")
		}
		dir := writeFiles(t, map[string]string{"compose.yaml": text})
		o := LoadOptions{WorkingDir: dir, ProjectName: "fuzz", Environment: testEnvironment}
		sameWithCache(t, text, o, newMemory())
	})
}

// quiet keeps the loader from logging what Load gives as warnings, as cmd does.
func quiet(t *testing.T) {
	out := logrus.StandardLogger().Out
	logrus.SetOutput(io.Discard)
	t.Cleanup(func() { logrus.SetOutput(out) })
}

// inputsFiles is a project that reads what can be read.
var inputsFiles = map[string]string{
	"app/compose.yaml": `
services:
  web:
    image: ${IMAGE:-web}:$TAG
    env_file: [{path: web.env, required: false}]
    environment: {GIVEN: , FIXED: "1"}
    volumes: ["~/data:/data", "./src:/src"]
    privileged: yes
    secrets: [key]
    configs: [text]
    depends_on: {db: {condition: service_started, required: false}}
  db: {image: db, profiles: [more]}
  tool: {image: tool, profiles: [tools]}
secrets: {key: {environment: KEY}}
configs: {text: {content: "the $TEXT"}}
x-any: {list: [1, 2.5, true, null, text]}
`,
	"app/.env":    "TAG=1\nTEXT=dotted\n",
	"app/web.env": "FROM_FILE=1\n",
	"app/src/x":   "",
}

// TestCacheSeesEveryChange changes one input after the other, at random, on top of all changes before, with one cache: never does it give
// what was true before.
func TestCacheSeesEveryChange(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred loads")
	}
	quiet(t)
	dir := filepath.Join(writeFiles(t, inputsFiles), "app")
	o := LoadOptions{WorkingDir: dir, Environment: map[string]string{"COMPOSE_PROFILES": "more"}}
	cache := newMemory()
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible on purpose
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, filepath.FromSlash(name))
		_ = os.Remove(path)
		if text == "" {
			return
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	variable := func(name string) func() {
		return func() {
			if value := one("", "a", "b"); value == "" {
				delete(o.Environment, name)
			} else {
				o.Environment[name] = value
			}
		}
	}
	main := inputsFiles["app/compose.yaml"]
	changes := map[string]func(){
		"TAG": variable("TAG"), "IMAGE": variable("IMAGE"), "GIVEN": variable("GIVEN"), "KEY": variable("KEY"), "TEXT": variable("TEXT"),
		"FROM_FILE": variable("FROM_FILE"), "LABEL": variable("LABEL"), "SUB": variable("SUB"), "name variable": variable("COMPOSE_PROJECT_NAME"),
		".env": func() {
			write(".env", one("", "TAG=1\nTEXT=x\n", "TAG=2\nTEXT=x\n", "TAG=1\nCOMPOSE_PROFILES=tools\n"))
		},
		"env_file": func() { write("web.env", one("", "FROM_FILE=1\n", "FROM_FILE=2\n", "GIVEN=$TAG\n")) },
		"override": func() {
			write("compose.override.yaml", one("", "services: {web: {hostname: h}}", "services: {web: {hostname: !reset null, image: other}}"))
		},
		"file": func() {
			write("compose.yaml", one(main, strings.Replace(main, "db: {image: db", "db: {image: db2", 1), "name: named\n"+main, "name: $TAG\n"+main))
		},
		"extends": func() {
			write("compose.yaml", strings.Replace(main, "tool: {", "tool: {extends: {file: base.yaml, service: base}, ", 1))
			write("base.yaml", "services: {base: {hostname: "+one("one", "two")+"}}")
		},
		"include": func() {
			write("compose.yaml", "include: [sub/inc.yaml]\n"+main)
			if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
				t.Fatal(err)
			}
			write("sub/inc.yaml", "services: {inc: {image: \"${SUB:-"+one("one", "two")+"}\"}}")
			write("sub/.env", one("", "SUB=1\n", "SUB=2\n"))
		},
		"label file": func() {
			write("compose.yaml", strings.Replace(main, "tool: {", "tool: {label_file: labels, ", 1))
			write("labels", one("LABEL=1\n", "LABEL=2\n"))
		},
		"watched link": func() {
			write("compose.yaml", strings.Replace(main, "db: {", "db: {develop: {watch: [{action: sync, path: link, target: /x}]}, ", 1))
			_ = os.Remove(filepath.Join(dir, "link"))
			if err := os.Symlink(one(dir, os.TempDir()), filepath.Join(dir, "link")); err != nil {
				write("link", "a system that has no links for us")
			}
		},
		"home":        func() { t.Setenv("HOME", "/home/"+one("a", "b")) },
		"profiles":    func() { o.Profiles = [][]string{nil, {"more"}, {"tools"}, {"*"}}[random.IntN(4)] },
		"name":        func() { o.ProjectName = one("", "n", "m") },
		"project dir": func() { o.ProjectDir = one("", dir, filepath.Dir(dir)) },
		"services":    func() { o.Services = [][]string{nil, {"web"}, {"tool"}, {"nosuch"}}[random.IntN(4)] },
		"paths":       func() { o.NoPathResolution = !o.NoPathResolution },
		"normal":      func() { o.NoNormalize = !o.NoNormalize },
		"consistency": func() { o.NoConsistency = !o.NoConsistency },
		"variables":   func() { o.NoInterpolate = !o.NoInterpolate },
		"env":         func() { o.NoEnvResolution = !o.NoEnvResolution },
		"resources":   func() { o.AllResources = !o.AllResources },
		"names":       func() { o.Compatibility = !o.Compatibility },
		"program":     func() { cache.program = one("1", "2") },
	}
	names := append(slices.Sorted(maps.Keys(changes)), "file", "file", "file") // so that other files are not read most of the time
	used := 0
	for i := range 400 {
		name := names[random.IntN(len(names))]
		changes[name]()
		if sameWithCache(t, fmt.Sprintf("change %d, %s", i, name), o, cache) {
			used++
		}
		if t.Failed() {
			return
		}
	}
	if used < 100 {
		t.Errorf("the cache was used %d times: this test shows little", used)
	}
}

// A transformed project does not leak into the cache, and is transformed again.
func TestCacheIsBeforeTransform(t *testing.T) {
	quiet(t)
	dir := filepath.Join(writeFiles(t, inputsFiles), "app")
	cache := newMemory()
	for _, name := range []string{"one", "two"} {
		o := LoadOptions{WorkingDir: dir, Profiles: []string{"*"}, Cache: cache, Transform: func(p *types.Project) (*types.Project, error) {
			q := *p
			q.Services = maps.Clone(p.Services)
			s := q.Services["web"]
			s.Hostname = name
			q.Services["web"] = s
			return &q, nil
		}}
		p, err := Load(t.Context(), o)
		if err != nil || p.Services["web"].Hostname != name {
			t.Errorf("%v, %v", p, err)
		}
	}
	if len(cache.kept) != 1 || cache.hits != 1 {
		t.Errorf("%d kept, %d found", len(cache.kept), cache.hits)
	}
}

// What is in the cache tells nobody a secret, and what is not as it was put there is not used.
func TestCacheIsSealed(t *testing.T) {
	quiet(t)
	dir := filepath.Join(writeFiles(t, inputsFiles), "app")
	o := LoadOptions{WorkingDir: dir, Environment: map[string]string{"COMPOSE_PROFILES": "*", "KEY": "very-secret", "GIVEN": "also-secret", "TAG": "t"}}
	cache := newMemory()
	want := loadOutcomeOf(t, o, cache)
	if len(cache.kept) != 1 {
		t.Fatalf("%d kept", len(cache.kept))
	}
	for name, content := range cache.kept {
		for _, secret := range []string{"secret", "web", "FROM_FILE"} {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%q can be read", secret)
			}
		}
		for what, damaged := range map[string][]byte{
			"empty": {}, "short": content[:5], "cut": content[:len(content)-1], "longer": append(slices.Clone(content), 0),
			"changed": append([]byte{content[0] ^ 1}, content[1:]...), "other": sealedEntry(sha256.Sum256(nil)).seal(&decoded{Project: &types.Project{}}),
		} {
			cache.kept[name] = damaged
			if got := loadOutcomeOf(t, o, cache); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v", what, got)
			}
			if bytes.Equal(cache.kept[name], damaged) {
				t.Errorf("%s: was not written again", what)
			}
		}
	}
}

// FuzzUnflatten: no text makes reading it fail other than by saying so, and what can be read is written as it was.
func FuzzUnflatten(f *testing.F) {
	flat, ok := flatten(&decoded{
		Unset: []string{"A"}, Warnings: []Warning{{Line: 3, Text: "t"}},
		Project: &types.Project{Name: "p", Extensions: types.Extensions{"x-a": []any{1, int64(-2), uint64(3), 1.5, nil, "s", true, map[string]any{}}}},
	})
	if !ok {
		f.Fatal("cannot be written")
	}
	f.Add(flat)
	f.Add("")
	f.Fuzz(func(t *testing.T, flat string) {
		d := unflatten[decoded](flat)
		if d == nil {
			return
		}
		again, ok := flatten(d)
		if !ok {
			t.Fatalf("%+v cannot be written", d)
		}
		if back := unflatten[decoded](again); back == nil {
			t.Errorf("%+v was written so that it cannot be read", d)
		}
	})
}

// TestFlattenRefuses what it could not give back.
func TestFlattenRefuses(t *testing.T) {
	type hidden struct{ a int }
	for _, v := range []any{hidden{1}, func() {}, make(chan int), map[int]int{1: 1}, []any{int8(1)}, [1]int{1}, complex(1, 1)} {
		held := struct{ V any }{v}
		if flat, ok := flatten(&held); ok {
			t.Errorf("%T was written: %q", v, flat)
		}
	}
	if _, ok := flatten(&hidden{2}); ok {
		t.Error("a structure with a hidden field was written")
	}
}

// TestLoaderReadsWhatIsKnown fails when a new release of compose-go looks at the world in more places than those that the cache takes into account:
// then see whether inputs and readsMore still cover all of them.
func TestLoaderReadsWhatIsKnown(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/compose-spec/compose-go/v2").Output()
	if err != nil {
		t.Skipf("needs the go command and the module: %v", err)
	}
	root := strings.TrimSpace(string(out))
	known := []string{
		"dotenv/env.go filepath.Abs", "dotenv/env.go os.IsNotExist", "dotenv/env.go os.ReadFile", "dotenv/env.go os.Stat", // of included files; ours are read each time
		"dotenv/godotenv.go os.Environ", "dotenv/godotenv.go os.Open", "dotenv/godotenv.go os.Setenv", // not called
		"interpolation/interpolation.go os.LookupEnv",                      // where no lookup is given: one is
		"loader/include.go os.Stat",                                        // readsMore
		"loader/loader.go filepath.Abs",                                    // LoadConfigFiles: not called
		"loader/loader.go os.ReadFile",                                     // files without content: included and extended ones
		"loader/loader.go os.Stat",                                         // the same
		"loader/paths.go filepath.Abs",                                     // not called
		"paths/home.go os.UserHomeDir",                                     // inputs
		"types/project.go os.IsNotExist",                                   // env_file and label_file
		"types/project.go os.Open",                                         // the same
		"types/project.go os.Stat",                                         // the same
		"types/project.go os.UserHomeDir",                                  // called by nobody while loading
		"utils/pathutils.go filepath.EvalSymlinks",                         // watched paths: readsMore
		"utils/pathutils.go os.Lstat", "utils/pathutils.go os.ModeSymlink", // the same
		"utils/pathutils.go os.PathSeparator",
		"validation/validation.go net.ParseIP",
	}
	var found []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && slices.Contains([]string{"cli", "cmd", "internal", "tests"}, filepath.ToSlash(rel)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		found = append(found, worldly(t, path, filepath.ToSlash(rel))...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	if found = slices.Compact(found); !slices.Equal(found, known) {
		t.Errorf("compose-go looks at the world in\n%s\nknown are\n%s", strings.Join(found, "\n"), strings.Join(known, "\n"))
	}
}

// worldly are the places in a Go file that have to do with files, variables, processes or time.
func worldly(t *testing.T, path, rel string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	pure := []string{"filepath.Join", "filepath.Dir", "filepath.Base", "filepath.Clean", "filepath.Rel", "filepath.IsAbs", "filepath.FromSlash", "filepath.ToSlash", "filepath.Ext", "filepath.VolumeName", "filepath.Match"}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := s.X.(*ast.Ident)
		if !ok {
			return true
		}
		name := pkg.Name + "." + s.Sel.Name
		switch pkg.Name {
		case "os", "exec", "user", "ioutil", "net", "http", "syscall", "rand":
		case "filepath":
			if slices.Contains(pure, name) {
				return true
			}
		case "time":
			if s.Sel.Name != "Now" {
				return true
			}
		default:
			return true
		}
		found = append(found, rel+" "+name)
		return true
	})
	return found
}
