// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command lazyschema prepares the module file that release builds use (go build -modfile=DIR/go.mod): the repository's own, with the JSON
// schema module replaced by a copy that does not compile its five meta-schemas at every process start.
//
// compose-go brings that module in, to check Compose files against the one schema that it embeds. The meta-schemas serve to check such a
// schema itself, which compose-go's authors have done. docs/adr/0003-lazy-json-schema.md has the figures. A plain go build works too, and is only
// slower to start.
//
// Usage: go run ./hack/lazyschema DIR
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/santhosh-tekuri/jsonschema/v6"

// edit is one replacement that must match exactly once, so that a new version of the module is noticed and not half patched.
type edit struct{ old, new string }

// edits are the replacements by file: no meta-schemas are compiled, and a schema without one counts as checked.
var edits = map[string]edit{
	"draft.go": {"\nfunc init() {\n", "\nfunc compileMetaSchemas() {\n"},
	"roots.go": {
		"\tmeta := dialect.getSchema(rr.assertVocabs, rr.vocabularies)\n",
		"\tmeta := dialect.getSchema(rr.assertVocabs, rr.vocabularies)\n\tif meta == nil {\n\t\treturn nil\n\t}\n",
	},
}

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
	source, err := goOutput("list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return err
	}
	copied := filepath.Join(dir, "jsonschema")
	if err := os.RemoveAll(copied); err != nil {
		return err
	}
	if err := copyModule(source, copied); err != nil {
		return err
	}
	for file, e := range edits {
		if err := patch(filepath.Join(copied, file), e); err != nil {
			return err
		}
	}
	return writeModFile(dir, copied)
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

func patch(file string, e edit) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if n := bytes.Count(data, []byte(e.old)); n != 1 {
		return fmt.Errorf("patch %q: %q stands there %d times, want once: the module's version changed, look at the patch again", file, e.old, n)
	}
	return os.WriteFile(file, bytes.Replace(data, []byte(e.old), []byte(e.new), 1), 0o644)
}

// writeModFile writes DIR/go.mod and DIR/go.sum: the repository's, plus the replacement. A replacement's path is relative to the main
// module's root, whichever -modfile says so; the absolute one is plainest.
func writeModFile(dir, copied string) error {
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
	absolute, err := filepath.Abs(copied)
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(root, absolute)
	if err != nil {
		return err
	}
	_, err = goOutput("mod", "edit", "-replace", module+"=./"+filepath.ToSlash(relative), filepath.Join(dir, "go.mod"))
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
