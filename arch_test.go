// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package dev_test holds the rules of the house that a compiler does not check: who imports whom, what every file and package carries, and
// what is not done anywhere. It reads the sources of all systems, not only of the one it runs on.
package dev_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module  = "github.com/seed71221737/dev"
	licence = "// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0\n\n"
)

// source is one Go file of the repository, parsed.
type source struct {
	path string // slash-separated, from the root
	text []byte
	fset *token.FileSet
	file *ast.File
}

// dir is the folder of the source's package: "." for the root.
func (s source) dir() string { return path.Dir(s.path) }

// testSupport are packages that only tests import; what holds for tests holds for them.
var testSupport = []string{"engine/enginetest/...", "machine/drivertest/..."}

func (s source) test() bool {
	return strings.HasSuffix(s.path, "_test.go") || matchesAny(testSupport, s.dir())
}

// at names the place of a node, for messages.
func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

func (s source) imports() []string {
	var found []string
	for _, spec := range s.file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		found = append(found, name)
	}
	return found
}

// files calls do for every file of the repository that ends in suffix, nested modules included; what is built or generated is left out.
func files(t *testing.T, suffix string, do func(name string, text []byte) error) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"dist", "bin", "testdata"}, d.Name())) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, suffix) {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return do(name, text)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file.
func sources(t *testing.T) []source {
	t.Helper()
	var found []source
	files(t, ".go", func(name string, text []byte) error {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found = append(found, source{filepath.ToSlash(name), text, fset, file})
		return nil
	})
	return found
}

func TestLicenceHeader(t *testing.T) {
	for _, s := range sources(t) {
		if !bytes.HasPrefix(s.text, []byte(licence)) {
			t.Errorf("%s: does not start with the licence header and an empty line", s.path)
		}
	}
}

func TestPackageComment(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") && s.dir() != "." {
			continue
		}
		documented[s.dir()] = documented[s.dir()] || s.file.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment (purpose, vocabulary, invariants)", dir)
		}
	}
}

func TestPackageNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base"}
	for _, s := range sources(t) {
		if name := strings.TrimSuffix(s.file.Name.Name, "_test"); slices.Contains(vague, name) {
			t.Errorf("%s: package %q says nothing about what is in it", s.path, name)
		}
	}
}

// importRule forbids the packages in one folder some imports. Names end in "/..." to cover what lies below, as in the go command.
type importRule struct {
	in     string
	forbid []string
	except []string
	why    string
}

var importRules = []importRule{
	{
		in: "compose/...",
		forbid: []string{
			module + "/...", "github.com/moby/moby/client/...", "github.com/docker/...", "github.com/moby/buildkit/...",
			"github.com/spf13/...", "os/exec", "os/signal", "net/http",
		},
		except: []string{module + "/compose/...", module + "/internal/lazyregexp"},
		why:    "compose is the pure core: it plans on data, and what it does goes through its Engine interface",
	},
	{
		in:     "engine/...",
		forbid: []string{module + "/cmd/...", module + "/machine/...", module + "/vmimage/...", module + "/hostagent/...", "github.com/spf13/..."},
		why:    "imports go cmd → engine → compose: an engine knows no command line and no machine",
	},
	{
		in:     "engine/native/...",
		forbid: []string{module + "/compose/..."},
		why:    "the service runs an engine; what it is used for is not its business",
	},
	{
		in:     "machine/...",
		forbid: []string{module + "/cmd/...", module + "/compose/...", module + "/engine/...", "github.com/spf13/..."},
		except: []string{module + "/engine/native/atomicfile"},
		why:    "imports go cmd → machine → {vmimage, hostagent}",
	},
	{
		in:     "vmimage/...",
		forbid: []string{module + "/cmd/...", module + "/compose/...", module + "/machine/...", "github.com/spf13/..."},
		why:    "imports go cmd → machine → {vmimage, hostagent}",
	},
	{
		in:     "hostagent/...",
		forbid: []string{module + "/cmd/...", module + "/compose/...", module + "/machine/...", "github.com/spf13/..."},
		why:    "imports go cmd → machine → {vmimage, hostagent}",
	},
	{
		in:     "engine/bundle/...",
		forbid: []string{module + "/..."},
		except: []string{module + "/engine/bundle/..."},
		why:    "the bundle is a module of its own: its dependencies and ours do not meet",
	},
}

// matches says whether a slash-separated name is pattern, or lies below it where that ends in "/...".
func matches(pattern, name string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == below || strings.HasPrefix(name, below+"/")
	}
	return name == pattern
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

func TestOnlyTestsImportTestSupport(t *testing.T) {
	for _, s := range sources(t) {
		for _, name := range s.imports() {
			if rel, ok := strings.CutPrefix(name, module+"/"); ok && matchesAny(testSupport, rel) && !s.test() {
				t.Errorf("%s: imports %q, which is for tests", s.path, name)
			}
		}
	}
}

func TestImportsPointOneWay(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, rule := range importRules {
			if !matches(rule.in, s.dir()) {
				continue
			}
			for _, name := range s.imports() {
				if matchesAny(rule.forbid, name) && !matchesAny(rule.except, name) {
					t.Errorf("%s: imports %q: %s", s.path, name, rule.why)
				}
			}
		}
	}
}

// Rules that can be broken at one place only, each with its reason.
var (
	// longFunctions may have more than maxLines lines.
	longFunctions = map[string]string{}
	// initFunctions are files that may declare init.
	initFunctions = map[string]string{}
)

// maxLines bounds a function that is not a table: it has to fit on a screen or two.
const maxLines = 100

func TestFunctionsAreShort(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if lines > maxLines && longFunctions[s.path+" "+f.Name.Name] == "" {
				t.Errorf("%s: func %s has %d lines, %d are the most", s.at(f), f.Name.Name, lines, maxLines)
			}
		}
	}
}

func TestNoHiddenState(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil && initFunctions[s.path] == "" {
				t.Errorf("%s: init runs in every process that links the package: call it where it is needed", s.at(f))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				s.checkSelector(t, sel)
			}
			return true
		})
	}
}

// TestComposeDoesNotConnect: the core may name addresses (package net), but opens none; and it is told the time.
func TestComposeDoesNotConnect(t *testing.T) {
	active := regexp.MustCompile(`^net\.(Dial|Listen|Lookup|Resolve|Interface)|^time\.Now$|^os\.(Getenv|LookupEnv|Environ|ExpandEnv)$`)
	for _, s := range sources(t) {
		if s.test() || !matches("compose/...", s.dir()) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && active.MatchString(pkg.Name+"."+sel.Sel.Name) {
					t.Errorf("%s: %s.%s: compose takes such things as arguments", s.at(sel), pkg.Name, sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// checkSelector refuses calls that change the process's environment, or wait without watching anything.
func (s source) checkSelector(t *testing.T, sel *ast.SelectorExpr) {
	t.Helper()
	pkg, ok := sel.X.(*ast.Ident)
	if !ok {
		return
	}
	switch pkg.Name + "." + sel.Sel.Name {
	case "os.Setenv", "os.Unsetenv", "os.Clearenv":
		t.Errorf("%s: os.%s changes every goroutine's environment: pass the environment as a value", s.at(sel), sel.Sel.Name)
	case "time.Sleep":
		t.Errorf("%s: time.Sleep cannot be cancelled: wait on an event, or on a timer and the context", s.at(sel))
	}
}

func TestNothingLeftToDo(t *testing.T) {
	marker := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if marker.MatchString(c.Text) {
					t.Errorf("%s: a comment says what is not done: do it, or open an issue", s.at(c))
				}
			}
		}
	}
}

// TestInterfacesAreSmall keeps interfaces at what a consumer needs of another package.
func TestInterfacesAreSmall(t *testing.T) {
	const most = 5
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok && len(i.Methods.List) > most {
				t.Errorf("%s: an interface of %d methods; %d are the most: ask for less, or use the type", s.at(i), len(i.Methods.List), most)
			}
			return true
		})
	}
}

// TestUnixFilesSayUnix: the go command knows _linux.go and _windows.go, but not _unix.go.
func TestUnixFilesSayUnix(t *testing.T) {
	for _, s := range sources(t) {
		name := strings.TrimSuffix(path.Base(s.path), "_test.go")
		if strings.HasSuffix(strings.TrimSuffix(name, ".go"), "_unix") && !bytes.Contains(s.text, []byte("\n//go:build unix")) {
			t.Errorf("%s: needs //go:build unix", s.path)
		}
	}
}

// TestDirectDependenciesAreExplained compares what the sources import with the table in docs/dependencies.md.
func TestDirectDependenciesAreExplained(t *testing.T) {
	document, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllSubmatch(document, -1) {
		explained = append(explained, string(row[1]))
	}
	direct := directDependencies(t)
	for name, file := range direct {
		if !slices.Contains(explained, name) {
			t.Errorf("%s: imports from module %s, docs/dependencies.md does not say why", file, name)
		}
	}
	for _, name := range explained {
		if direct[name] == "" {
			t.Errorf("docs/dependencies.md explains %s, but nothing imports it", name)
		}
	}
}

// directDependencies maps the modules that dev's own sources import to one file that does.
func directDependencies(t *testing.T) map[string]string {
	t.Helper()
	required := requiredModules(t, "go.mod")
	direct := map[string]string{}
	for _, s := range sources(t) {
		if nested(s.dir()) {
			continue
		}
		for _, name := range s.imports() {
			owner := ""
			for _, m := range required {
				if matches(m+"/...", name) && len(m) > len(owner) {
					owner = m
				}
			}
			if owner != "" {
				direct[owner] = s.path
			}
		}
	}
	return direct
}

// nested says whether a folder belongs to a module of its own.
func nested(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return true
		}
	}
	return false
}

func requiredModules(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\t?(\S+) v\S+( // indirect)?$`).FindAllSubmatch(text, -1) {
		found = append(found, string(m[1]))
	}
	return found
}

// TestDocumentLinks: a link from one of our documents to another leads somewhere.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	files(t, ".md", func(name string, text []byte) error {
		for _, m := range link.FindAllSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), string(m[1]))); err != nil {
				t.Errorf("%s: links to %s, which is not there", name, m[1])
			}
		}
		return nil
	})
}
