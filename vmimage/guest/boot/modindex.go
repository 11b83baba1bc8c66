// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Index is the image's table of kernel modules; package vmimage writes it.
type Index struct {
	modules map[string]indexed
	aliases []alias
	builtin map[string]bool
}

type indexed struct {
	file      string
	needs     []string
	pre, post []string
}

type alias struct{ pattern, module string }

// ParseIndex reads the table: lines "module NAME FILE NEEDS PRE POST", "alias PATTERN NAME" and "builtin NAME".
func ParseIndex(r io.Reader) (*Index, error) {
	x := &Index{modules: map[string]indexed{}, builtin: map[string]bool{}}
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		f := strings.Fields(sc.Text())
		switch {
		case len(f) == 6 && f[0] == "module":
			x.modules[f[1]] = indexed{file: f[2], needs: list(f[3]), pre: list(f[4]), post: list(f[5])}
		case len(f) == 3 && f[0] == "alias":
			x.aliases = append(x.aliases, alias{strings.ReplaceAll(f[1], "-", "_"), f[2]})
		case len(f) == 2 && f[0] == "builtin":
			x.builtin[f[1]] = true
		default:
			return nil, fmt.Errorf("read module index: line %d is malformed", n)
		}
	}
	return x, sc.Err()
}

func list(s string) []string {
	if s == "-" {
		return nil
	}
	return strings.Split(s, ",")
}

// Files returns the module files to load for a name or alias, in order, each once. Unknown names give none, as do built-in ones; known tells which.
func (x *Index) Files(name string) (files []string, known bool) {
	seen := map[string]bool{}
	for _, m := range x.resolve(name) {
		known = true
		x.collect(m, seen, &files)
	}
	return files, known || x.builtin[strings.ReplaceAll(name, "-", "_")]
}

// resolve finds the modules of a name: its own, else all whose alias matches. A kernel may ask with dashes or underscores.
func (x *Index) resolve(name string) []string {
	name = strings.ReplaceAll(name, "-", "_")
	if _, ok := x.modules[name]; ok {
		return []string{name}
	}
	var found []string
	for _, a := range x.aliases {
		ok := a.pattern == name
		if !ok && strings.ContainsAny(a.pattern, "*?[") {
			ok, _ = path.Match(a.pattern, name)
		}
		if ok && !slices.Contains(found, a.module) {
			found = append(found, a.module)
		}
	}
	return found
}

// collect puts what a module needs before it, and its soft dependencies around it. A cycle, which only soft dependencies make, ends where it began.
func (x *Index) collect(name string, seen map[string]bool, files *[]string) {
	m, ok := x.modules[name]
	if !ok || seen[name] {
		return
	}
	seen[name] = true
	for _, d := range slices.Concat(m.pre, m.needs) {
		for _, r := range x.resolve(d) {
			x.collect(r, seen, files)
		}
	}
	*files = append(*files, m.file)
	for _, d := range m.post {
		for _, r := range x.resolve(d) {
			x.collect(r, seen, files)
		}
	}
}
