// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// The forms of compose-go's errors that say where something is wrong. They are matched by text since the errors have no types; what does
// not match any more loses its line number and nothing else.
var (
	parseFailure  = lazyregexp.New(`(?s)^failed to parse (.+?): (.*)$`)
	schemaFailure = lazyregexp.New(`(?s)^validating (.+?): (\S*) (.*)$`)
	notAllowed    = lazyregexp.New(`^additional properties '([^']+)'.* not allowed$`)
	lineInText    = lazyregexp.New(`\bline (\d+)(?:, column \d+)?: ?`)
	valueFailure  = lazyregexp.New(`(?s)^error while interpolating (\S+): (?:failed to cast to expected type: )?(.*)$`)
	decodeFailure = lazyregexp.New(`(?s)^decoding failed.*?'([a-z]+)\[([^\]]+)\]((?:\.[^']+)*)' (.*)$`)
	pathInText    = lazyregexp.New(`\b((?:services|networks|volumes|configs|secrets|models|include|jobs)(?:\.[^\s:]+)+)`)
	undefined     = lazyregexp.New(`service "([^"]+)" (?:refers to|depends on) undefined (network|volume|config|secret|service|model) "?([^\s":]+)`)
	cycleInText   = lazyregexp.New(`^(dependency cycle detected: |Circular reference:\s+)(\S+)`)
	serviceInText = lazyregexp.New(`service "([^"]+)"`)
	fileInText    = lazyregexp.New(`env file (.+?) not found`)
)

// explain gives an error of the loader the file and line it is about, as far as they can be known.
func (s *sources) explain(err error) error {
	var known *FieldError
	if errors.As(err, &known) {
		return err
	}
	// Only the outermost may be a list.
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, s.explain(e))
		}
		return errors.Join(all...)
	}
	var panicked *loaderPanic
	if errors.As(err, &panicked) {
		file, line := s.findNull()
		return &FieldError{File: file, Line: line, Err: err}
	}
	text := err.Error()
	if m := parseFailure.FindStringSubmatch(text); m != nil {
		return explainSyntax(m[1], m[2], err)
	}
	if m := schemaFailure.FindStringSubmatch(text); m != nil {
		return s.explainSchema(m[1], m[2], m[3], err)
	}
	if m := valueFailure.FindStringSubmatch(text); m != nil {
		file, line := s.findDotted("", m[1])
		return &FieldError{File: file, Line: line, Field: m[1], Err: &reworded{m[2], err}}
	}
	if m := decodeFailure.FindStringSubmatch(text); m != nil {
		path := m[1] + "." + m[2] + strings.NewReplacer("[", ".", "]", "").Replace(m[3])
		file, line := s.findDotted("", path)
		return &FieldError{File: file, Line: line, Field: path, Err: &reworded{m[4], err}}
	}
	file, line := s.placeIn(text, err)
	if file == "" && len(s.given) == 1 {
		file = s.given[0].name
	}
	if file == "" {
		return fmt.Errorf("load compose files: %w", err)
	}
	text = strings.TrimSuffix(text, ": invalid compose project")
	return &FieldError{File: file, Line: line, Err: &reworded{strings.Join(strings.Fields(text), " "), err}}
}

// explainSyntax moves the line number that the YAML parser mentions last, the most exact one, to the front.
func explainSyntax(file, text string, err error) error {
	e := &FieldError{File: file}
	first, _, _ := strings.Cut(strings.TrimPrefix(text, "yaml: construct errors:\n"), "\n")
	text = strings.TrimSpace(strings.TrimPrefix(first, "yaml: "))
	if all := lineInText.Get().FindAllStringSubmatchIndex(text, -1); all != nil {
		m := all[len(all)-1]
		e.Line, _ = strconv.Atoi(text[m[2]:m[3]])
		if strings.HasPrefix(text, "while parsing") {
			e.Line++ // this one part of the parser counts from 0
		}
		text = text[m[1]:]
	}
	e.Err = &reworded{"invalid YAML: " + text, err}
	return e
}

// explainSchema says in plain words what does not fit the specification's schema.
func (s *sources) explainSchema(file, path, text string, err error) error {
	text = strings.NewReplacer("must be a array", "must be a list", "a object", "a mapping").Replace(text)
	if m := notAllowed.FindStringSubmatch(text); m != nil {
		path, text = strings.TrimPrefix(path+"."+m[1], "."), "false schema"
	}
	file, line := s.findDotted(file, path)
	e := &FieldError{File: file, Line: line, Field: path}
	if text != "false schema" { // it is how the schema forbids names that it does not know
		e.Err = &reworded{text, err}
		return e
	}
	text = "there is no such field"
	if near := nearField(path); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	e.Err = &reworded{text, err}
	return e
}

// nearField is the field of the specification that a wrong one was most likely meant to be, or empty.
func nearField(path string) string {
	parts := strings.Split(path, ".")
	last := len(parts) - 1
	for _, known := range schema.AttributePaths() {
		p := known.Parts()
		if len(p) != len(parts) || !oneEditApart(p[last], parts[last]) {
			continue
		}
		same := true
		for i := range last {
			same = same && (p[i] == parts[i] || p[i] == tree.PathMatchAll || p[i] == tree.PathMatchList)
		}
		if same {
			return p[last]
		}
	}
	return ""
}

// oneEditApart reports whether one letter more, less, changed or swapped with its neighbour turns a into b.
func oneEditApart(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	start := 0
	for start < len(a) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	a, b = a[start:len(a)-end], b[start:len(b)-end]
	return len(b) == 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

// placeIn finds the place that an error speaks of.
func (s *sources) placeIn(text string, err error) (file string, line int) {
	if m := undefined.FindStringSubmatch(text); m != nil {
		field := m[2] + "s"
		if m[2] == "service" {
			field = "depends_on"
		}
		return s.find("services", m[1], field, m[3])
	}
	if m := cycleInText.FindStringSubmatch(text); m != nil {
		field := "depends_on"
		if strings.HasPrefix(m[1], "C") {
			field = "extends"
		}
		return s.find("services", m[2], field)
	}
	if m := pathInText.FindStringSubmatch(text); m != nil {
		return s.findDotted("", strings.TrimRight(m[1], ".,"))
	}
	if m := serviceInText.FindStringSubmatch(text); m != nil {
		return s.find("services", m[1])
	}
	if name := missingName(text, err); name != "" {
		return s.findText(regexp.MustCompile(regexp.QuoteMeta(name)))
	}
	return s.findBadEntry()
}

// missingName is how the files are likely to call what could not be read.
func missingName(text string, err error) string {
	var path *fs.PathError
	var refused *remoteError
	switch {
	case errors.As(err, &refused):
		return refused.path
	case errors.As(err, &path):
		return filepath.Base(path.Path)
	}
	if m := fileInText.FindStringSubmatch(text); m != nil {
		return filepath.Base(m[1])
	}
	return ""
}

// findBadEntry gives the place of the first port or volume in short syntax that cannot be parsed: compose-go does not say which it is.
func (s *sources) findBadEntry() (file string, line int) {
	for _, f := range s.reachable() {
		_, services := child(f.node(), "services")
		if services == nil {
			continue
		}
		for _, service := range services.Content {
			if n := badEntry(service); n != nil {
				return f.name, n.Line
			}
		}
	}
	return "", 0
}

// findNull gives the place of the first key without a value below the sections' own entries, where one usually means something. It is a guess.
func (s *sources) findNull() (file string, line int) {
	for _, f := range s.reachable() {
		if n := nullBelow(f.node(), 0); n != nil {
			return f.name, n.Line
		}
	}
	return "", 0
}

func nullBelow(n *yaml.Node, level int) *yaml.Node {
	const entries = 3 // services, web, build
	if n == nil {
		return nil
	}
	if n.Tag == "!!null" && level > entries {
		return n
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 || n.Kind == yaml.MappingNode && n.Content[i-1].Value == "environment" {
			continue
		}
		if found := nullBelow(c, level+1); found != nil {
			return found
		}
	}
	return nil
}

func badEntry(service *yaml.Node) *yaml.Node {
	for field, parse := range map[string]func(string) error{
		"ports":   func(text string) error { _, err := types.ParsePortConfig(text); return err },
		"volumes": func(text string) error { _, err := format.ParseVolume(text); return err },
	} {
		_, list := child(service, field)
		if list == nil || list.Kind != yaml.SequenceNode {
			continue
		}
		bad := slices.IndexFunc(list.Content, func(n *yaml.Node) bool {
			return n.Kind == yaml.ScalarNode && !strings.Contains(n.Value, "$") && parse(n.Value) != nil
		})
		if bad >= 0 {
			return list.Content[bad]
		}
	}
	return nil
}

// reworded is an error with another text.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }
