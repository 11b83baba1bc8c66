// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

const (
	// maxSources bounds how many included files are read in search of a line.
	maxSources = 64
	// maxDepth bounds how deep a file may be nested.
	maxDepth = 256
)

// sources are the texts of a project's files. They are parsed only when there is something to report, to find its line.
type sources struct {
	given []*source
	all   []*source // given, and what they include; filled by reachable
}

type source struct {
	name    string
	content []byte
	root    *yaml.Node
	parsed  bool
}

// readSources reads the files; "-" is stdin.
func readSources(names []string, stdin io.Reader) (*sources, error) {
	s := &sources{}
	for _, name := range names {
		content, err := readSource(name, stdin)
		if err != nil {
			return nil, err
		}
		s.given = append(s.given, &source{name: name, content: content})
	}
	for _, f := range s.given {
		if f.mayBeDeep() && depth(f.node()) > maxDepth {
			return nil, &FieldError{File: f.name, Err: fmt.Errorf("nested more than %d levels deep", maxDepth)}
		}
	}
	return s, nil
}

// mayBeDeep reports whether the text could be nested beyond maxDepth: a quick upper bound that the usual file stays far below. The loader
// needs memory that grows with the square of the depth.
func (f *source) mayBeDeep() bool {
	block := 0
	for line := range bytes.Lines(f.content) {
		indent := len(line) - len(bytes.TrimLeft(line, " \t"))
		// A sequence may stand at the column of the key that it belongs to: two levels a column at most.
		block = max(block, 2*indent+2*bytes.Count(line, []byte("-"))+bytes.Count(line, []byte("?"))+2)
	}
	flow := bytes.Count(f.content, []byte("{")) + bytes.Count(f.content, []byte("["))
	return block+flow > maxDepth
}

// depth is how many levels a tree has. Aliases count as leaves: the loader bounds them itself.
func depth(n *yaml.Node) int {
	deepest := 0
	if n != nil {
		for _, c := range n.Content {
			deepest = max(deepest, depth(c))
		}
		deepest++
	}
	return deepest
}

func readSource(name string, stdin io.Reader) ([]byte, error) {
	if name != "-" {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read compose file: %w", err)
		}
		return b, nil
	}
	if stdin == nil {
		return nil, fmt.Errorf("read compose file from standard input: there is none")
	}
	b, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("read compose file from standard input: %w", err)
	}
	return b, nil
}

// sourcesOf reads a loaded project's files again. What cannot be read is left out: its lines are not known.
func sourcesOf(p *types.Project) *sources {
	s := &sources{}
	for _, name := range p.ComposeFiles {
		if content, err := os.ReadFile(name); err == nil {
			s.given = append(s.given, &source{name: name, content: content})
		}
	}
	return s
}

func (s *sources) names() []string {
	var names []string
	for _, f := range s.given {
		names = append(names, f.name)
	}
	return names
}

// nameKey matches whatever could be a top-level "name:", and more.
var nameKey = lazyregexp.New(`(?m)(^|[\s{,?"'])name["']?\s*:`)

func mayName(content []byte) bool {
	return bytes.Contains(content, []byte("name")) && nameKey.Get().Match(content)
}

// nameProject reports whether one of the files names the project. It is quick for files without any "name:".
func (s *sources) nameProject() bool {
	for _, f := range s.given {
		if !mayName(f.content) {
			continue
		}
		var top struct {
			Name string `yaml:"name"`
		}
		if err := yaml.Unmarshal(f.content, &top); err == nil && top.Name != "" {
			return true
		}
	}
	return false
}

// node is the file's top mapping, or nil.
func (f *source) node() *yaml.Node {
	if !f.parsed {
		f.parsed = true
		var doc yaml.Node
		if yaml.Unmarshal(f.content, &doc) == nil && len(doc.Content) > 0 {
			f.root = doc.Content[0]
		}
	}
	return f.root
}

// reachable lists the given files, last first since they override, then the files that they include or extend.
func (s *sources) reachable() []*source {
	if s.all != nil {
		return s.all
	}
	s.all = slices.Clone(s.given)
	slices.Reverse(s.all)
	for i := 0; i < len(s.all) && len(s.all) < maxSources; i++ {
		for _, name := range s.all[i].references() {
			known := slices.ContainsFunc(s.all, func(f *source) bool { return f.name == name })
			if content, err := os.ReadFile(name); err == nil && !known {
				s.all = append(s.all, &source{name: name, content: content})
			}
		}
	}
	return s.all
}

// references lists the files that this one includes or whose services it extends.
func (f *source) references() []string {
	var top struct {
		Include  []yaml.Node `yaml:"include"`
		Services map[string]struct {
			Extends yaml.Node `yaml:"extends"`
		} `yaml:"services"`
	}
	if root := f.node(); root == nil || root.Decode(&top) != nil {
		return nil
	}
	var names []string
	add := func(n *yaml.Node) {
		if n != nil && n.Kind == yaml.ScalarNode && n.Value != "" {
			names = append(names, abs(filepath.Dir(f.name), n.Value))
		}
	}
	for i := range top.Include {
		n := &top.Include[i]
		if _, path := child(n, "path"); path != nil {
			n = path
		}
		add(n)
		for _, item := range n.Content {
			if n.Kind == yaml.SequenceNode {
				add(item)
			}
		}
	}
	for _, s := range top.Services {
		_, file := child(&s.Extends, "file")
		add(file)
	}
	return names
}

// find gives the place of a field: of the longest part of the path that some file has.
func (s *sources) find(path ...string) (file string, line int) {
	best := 0
	for _, f := range s.reachable() {
		if depth, l := descend(f.node(), path); depth > best {
			best, file, line = depth, f.name, l
		}
	}
	if file == "" && len(s.given) > 0 {
		file = s.given[0].name
	}
	return file, line
}

// findDotted is find for a path written with dots, in one file or (file empty) in all. Keys may hold dots themselves.
func (s *sources) findDotted(file, path string) (string, int) {
	best, where, line := 0, file, 0
	candidates := s.reachable()
	if file != "" && !slices.ContainsFunc(candidates, func(f *source) bool { return f.name == file }) {
		if content, err := os.ReadFile(file); err == nil {
			candidates = append(slices.Clone(candidates), &source{name: file, content: content})
		}
	}
	for _, f := range candidates {
		if file != "" && f.name != file {
			continue
		}
		if depth, l := descend(f.node(), splitDotted(f.node(), path)); depth > best {
			best, where, line = depth, f.name, l
		}
	}
	return where, line
}

// findText gives the place of the first line that matches.
func (s *sources) findText(re *regexp.Regexp) (file string, line int) {
	for _, f := range s.reachable() {
		if at := re.FindIndex(f.content); at != nil {
			return f.name, 1 + bytes.Count(f.content[:at[0]], []byte("\n"))
		}
	}
	return "", 0
}

// descend follows the path from n as far as it goes. It returns how many steps that was, and the line of the last one.
func descend(n *yaml.Node, path []string) (depth, line int) {
	for _, key := range path {
		at, next := child(n, key)
		if next == nil {
			break
		}
		depth, line, n = depth+1, at, next
	}
	return depth, line
}

// child is the value under key in a mapping, or the item in a sequence, and the line it is at. A sequence is asked by index, or, where a
// mapping was expected, by the name that its item starts with (NAME=value, NAME:value, NAME).
func child(n *yaml.Node, key string) (line int, value *yaml.Node) {
	for range 10 { // an alias of an alias cannot be written; a bound all the same
		if n == nil || n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	switch {
	case n == nil:
	case n.Kind == yaml.SequenceNode:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i].Line, n.Content[i]
		}
		for _, item := range n.Content {
			if name, rest := strings.CutPrefix(item.Value, key); rest && (name == "" || name[0] == '=' || name[0] == ':') {
				return item.Line, item
			}
		}
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i].Line, n.Content[i+1]
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "<<" && n.Content[i+1].Kind == yaml.AliasNode {
				if line, value := child(n.Content[i+1].Alias, key); value != nil {
					return line, value
				}
			}
		}
	}
	return 0, nil
}

// splitDotted splits a path at its dots, keeping together what is one key of the tree.
func splitDotted(n *yaml.Node, path string) []string {
	var keys []string
	for path != "" {
		parts := strings.Split(path, ".")
		take := 1
		for i := len(parts); i > 1; i-- {
			if _, v := child(n, strings.Join(parts[:i], ".")); v != nil {
				take = i
				break
			}
		}
		key := strings.Join(parts[:take], ".")
		keys = append(keys, key)
		_, n = child(n, key)
		path = strings.Join(parts[take:], ".")
	}
	return keys
}
