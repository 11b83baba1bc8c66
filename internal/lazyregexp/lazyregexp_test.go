// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package lazyregexp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestRegexp(t *testing.T) {
	r := New(`^a(b*)$`)
	if !r.MatchString("abb") || r.MatchString("c") || r.Get().String() != `^a(b*)$` {
		t.Error("matches something else")
	}
	if m := r.FindStringSubmatch("abb"); !slices.Equal(m, []string{"abb", "bb"}) {
		t.Errorf("found %q", m)
	}
}

// No package that dev links compiles expressions at its start. Every pattern that is compiled later is right: it is compiled here.
func TestPatternsCompile(t *testing.T) {
	patterns := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && slices.Contains([]string{"dist", "bin", "testdata", "bundle"}, d.Name()) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil //nolint:nilerr // not for this test to say
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "New" || !isIdent(f.X, "lazyregexp") {
				return true
			}
			pattern, ok := constant(call.Args[0])
			if !ok {
				t.Errorf("%s: a pattern is no constant text", path)
			} else if _, err := regexp.Compile(pattern); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			patterns++
			return true
		})
		return nil
	})
	if err != nil || patterns == 0 {
		t.Errorf("%d patterns, %v", patterns, err)
	}
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// constant is the text that literals and their sums stand for.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		a, okA := constant(e.X)
		b, okB := constant(e.Y)
		return a + b, okA && okB && e.Op == token.ADD
	}
	return "", false
}
