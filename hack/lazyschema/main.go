// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command lazyschema prepares the module file that release builds use (go build -modfile=DIR/go.mod): the repository's own, with some
// modules replaced by copies that have a few lines changed, because every command pays for those lines:
//
//   - the JSON schema module, which compose-go brings in, compiles no meta-schemas at every process start;
//   - compose-go compares paths without splitting them into parts first, half of what reading a Compose file costs;
//   - mapstructure, which compose-go decodes with, makes the list of a struct's fields once, a quarter of the memory that reading costs;
//   - what image references, digests and media types look like is compiled when it is first asked for, not at every process start, and so is a
//     table of checksums;
//   - pflag, which the command line is made with, does not write empty lists as CSV.
//
// docs/adr/0003-lazy-json-schema.md has the reasons and the figures. A plain go build works too, and is only slower.
//
// Usage: go run ./hack/lazyschema DIR
package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit is one replacement that must match exactly once, so that a new version of the module is noticed and not half patched.
type edit struct{ old, new string }

// patched is a module to copy, the folder to copy it to, and the replacements by file.
type patched struct {
	module, folder string
	edits          map[string][]edit
	// lazy are the files whose regular expressions are to be compiled when they are first used, and how many these are.
	lazy map[string]int
}

var modules = []patched{
	{"github.com/distribution/reference", "reference", map[string][]edit{
		"regexp.go": {{"\t\"regexp\"\n", ""}},
	}, map[string]int{"regexp.go": 10}},
	{"github.com/opencontainers/go-digest", "go-digest", map[string][]edit{
		"algorithm.go": {{"\t\"regexp\"\n", ""}, {"map[Algorithm]*regexp.Regexp{", "map[Algorithm]*lazyRegexp{"}},
		"digest.go":    {{"\t\"regexp\"\n", ""}},
	}, map[string]int{"algorithm.go": 3, "digest.go": 2}},
	{"oras.land/oras-go/v2", "oras-go", map[string][]edit{
		"pack.go":               {{"\t\"regexp\"\n", ""}},
		"registry/reference.go": {{"\t\"regexp\"\n", ""}},
	}, map[string]int{"pack.go": 1, "registry/reference.go": 2}},
	// A list flag that is empty by default is not written as CSV to learn so: 4 kB for each of them.
	{"github.com/spf13/pflag", "pflag", map[string][]edit{
		"string_slice.go": {{
			"func writeAsCSV(vals []string) (string, error) {\n",
			"func writeAsCSV(vals []string) (string, error) {\n\tif len(vals) == 0 {\n\t\treturn \"\", nil\n\t}\n",
		}},
	}, nil},
	{"github.com/klauspost/compress", "compress", map[string][]edit{
		"internal/snapref/snappy.go": lazyTable,
		"zstd/snappy.go":             lazyTable,
	}, nil},
	// No meta-schemas are compiled, and a schema without one counts as checked.
	{"github.com/santhosh-tekuri/jsonschema/v6", "jsonschema", map[string][]edit{
		"draft.go": {{"\nfunc init() {\n", "\nfunc compileMetaSchemas() {\n"}},
		"roots.go": {{
			"\tmeta := dialect.getSchema(rr.assertVocabs, rr.vocabularies)\n",
			"\tmeta := dialect.getSchema(rr.assertVocabs, rr.vocabularies)\n\tif meta == nil {\n\t\treturn nil\n\t}\n",
		}},
	}, nil},
	// The same answer part by part, without a list of parts: it is asked for every pattern at every value of a file.
	{"github.com/compose-spec/compose-go/v2", "compose-go", map[string][]edit{
		"tree/path.go": {{
			"func (p Path) Matches(pattern Path) bool {\n",
			`func (p Path) Matches(pattern Path) bool {
	path, want := string(p), string(pattern)
	for {
		part, rest, more := strings.Cut(path, pathSeparator)
		wantPart, wantRest, wantMore := strings.Cut(want, pathSeparator)
		if more != wantMore || wantPart != PathMatchAll && wantPart != part {
			return false
		}
		if !more {
			return true
		}
		path, want = rest, wantRest
	}
}

func (p Path) matchesSplit(pattern Path) bool {
`,
		}},
	}, nil},
	// A service has a hundred fields: their list is made at its full size at once, and a tag's name without commas is not split at commas.
	{"github.com/go-viper/mapstructure/v2", "mapstructure", map[string][]edit{
		"mapstructure.go": {
			{"\tfields := []field{}\n\tfor len(structs) > 0 {\n", "\tfields := make([]field, 0, val.NumField())\n\tfor len(structs) > 0 {\n"},
			{
				"\tfor _, name := range splitTagNames(tagName) {\n\t\tif tag := field.Tag.Get(name); tag != \"\" {\n",
				`	if tagName != "" && !strings.ContainsAny(tagName, ", ") {
		tag := field.Tag.Get(tagName)
		return tag, tag != ""
	}
	for _, name := range splitTagNames(tagName) {
		if tag := field.Tag.Get(name); tag != "" {
`,
			},
		},
	}, nil},
}

// lazyTable has a table made when it is first used, and kept by the library that makes it.
var lazyTable = []edit{
	{"var crcTable = crc32.MakeTable(crc32.Castagnoli)\n", ""},
	{"crc32.Update(0, crcTable, b)", "crc32.Update(0, crc32.MakeTable(crc32.Castagnoli), b)"},
}

// lazyRegexp stands in a package whose expressions are compiled when they are first used.
const lazyRegexp = `package %s

import (
	"regexp"
	"sync"
)

type lazyRegexp struct {
	text     string
	once     sync.Once
	compiled *regexp.Regexp
}

func newLazyRegexp(text string) *lazyRegexp { return &lazyRegexp{text: text} }

func (r *lazyRegexp) get() *regexp.Regexp {
	r.once.Do(func() { r.compiled = regexp.MustCompile(r.text) })
	return r.compiled
}

func (r *lazyRegexp) String() string                       { return r.text }
func (r *lazyRegexp) MatchString(s string) bool            { return r.get().MatchString(s) }
func (r *lazyRegexp) FindStringSubmatch(s string) []string { return r.get().FindStringSubmatch(s) }
`

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lazyschema DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "lazyschema:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	for _, m := range modules {
		source, err := goOutput("list", "-m", "-f", "{{.Dir}}", m.module)
		if err != nil {
			return err
		}
		copied := filepath.Join(dir, m.folder)
		if err := os.RemoveAll(copied); err != nil {
			return err
		}
		if err := copyModule(source, copied); err != nil {
			return err
		}
		for file, edits := range m.edits {
			for _, e := range edits {
				if err := patch(filepath.Join(copied, filepath.FromSlash(file)), e, 1); err != nil {
					return err
				}
			}
		}
		for file, count := range m.lazy {
			if err := makeLazy(filepath.Join(copied, filepath.FromSlash(file)), count); err != nil {
				return err
			}
		}
	}
	return writeModFile(dir)
}

// copyModule copies what the build needs: the Go files that are not tests, and the embedded schemas.
func copyModule(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" || d.Name() == "cmd" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
}

// patch makes a replacement, which must match exactly count times.
func patch(file string, e edit, count int) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if n := bytes.Count(data, []byte(e.old)); n != count {
		return fmt.Errorf("patch %q: %q stands there %d times, want %d: the module's version changed, look at the patch again", file, e.old, n, count)
	}
	return os.WriteFile(file, bytes.ReplaceAll(data, []byte(e.old), []byte(e.new)), 0o644)
}

// makeLazy has the count expressions in a file compiled when they are first used.
func makeLazy(file string, count int) error {
	if err := patch(file, edit{"regexp.MustCompile(", "newLazyRegexp("}, count); err != nil {
		return err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(filepath.Dir(file), "lazy_regexp.go"), fmt.Appendf(nil, lazyRegexp, parsed.Name.Name), 0o644)
}

// writeModFile writes DIR/go.mod and DIR/go.sum: the repository's, plus the replacements. A replacement's path is relative to the main
// module's root, whichever -modfile says so; the absolute one is plainest.
func writeModFile(dir string) error {
	root, err := goOutput("list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	edit := []string{"mod", "edit"}
	for _, m := range modules {
		absolute, err := filepath.Abs(filepath.Join(dir, m.folder))
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, absolute)
		if err != nil {
			return err
		}
		edit = append(edit, "-replace", m.module+"=./"+filepath.ToSlash(relative))
	}
	_, err = goOutput(append(edit, filepath.Join(dir, "go.mod"))...)
	return err
}

func goOutput(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
