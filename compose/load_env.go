// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/tree"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// unsetVariables remembers the variables that were used without being set and without a default.
type unsetVariables struct {
	names []string
	ports bool // one that holds a published port (see PortVariables) was used, set or not
}

// substitute replaces the variables in a value of a Compose file. Each is handed to compose-go on its own: it takes time that grows with
// the cube of their number in one text, and of their nesting.
func (u *unsetVariables) substitute(text string, lookup template.Mapping) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	if nesting(text) > maxNesting {
		return "", fmt.Errorf("variables are nested more than %d levels deep", maxNesting)
	}
	var result strings.Builder
	for text != "" {
		at := strings.IndexByte(text, '$')
		if at < 0 {
			break
		}
		end := at + variableLength(text[at:])
		value, err := u.expand(text[at:end], lookup)
		if err != nil {
			return "", err
		}
		result.WriteString(text[:at] + value)
		text = text[end:]
	}
	result.WriteString(text)
	return result.String(), nil
}

// expand replaces one variable.
func (u *unsetVariables) expand(variable string, lookup template.Mapping) (string, error) {
	if len(variable) == 1 {
		return variable, nil
	}
	return template.SubstituteWithOptions(variable, func(name string) (string, bool) {
		v, ok := lookup(name)
		u.ports = u.ports || strings.HasPrefix(name, portVariable)
		if ok || !isBare(name, variable) {
			return v, ok
		}
		if !slices.Contains(u.names, name) {
			u.names = append(u.names, name)
		}
		// Saying that it is set, to nothing, gives the same and keeps compose-go from logging it; not where a default asks, too.
		return "", !withDefault(name).MatchString(variable)
	}, template.WithoutLogging)
}

// isBare reports whether a variable is used without any default.
func isBare(name, variable string) bool {
	mentioned := strings.Contains(variable, "${"+name+"}") || strings.Contains(variable, "$"+name)
	return mentioned && bare(name).MatchString(variable)
}

// variableLength is how long the variable is that the text starts with: $$, $NAME or ${…}. It is 1 for a dollar sign that starts none, and
// everything for a brace that is never closed.
func variableLength(text string) int {
	switch {
	case strings.HasPrefix(text, "$$"):
		return 2
	case !strings.HasPrefix(text, "${"):
		return 1 + len(variableName.Get().FindString(text[1:]))
	}
	open := 0
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '{':
			open++
			i++ // as compose-go counts: what follows a brace never closes it
		case '}':
			if open--; open == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}

// variableName matches the name of a variable at the start of a text.
var variableName = lazyregexp.New(`^(?i:[_a-z][_a-z0-9]*)`)

// maxNesting bounds ${A:-${B:-…}}.
const maxNesting = 32

// nesting is how deep variables are nested in the text, or more.
func nesting(text string) int {
	open, deepest := 0, 0
	for i := range len(text) {
		switch {
		case text[i] == '{' && i > 0 && text[i-1] == '$':
			open++
			deepest = max(deepest, open)
		case text[i] == '}':
			open = max(0, open-1)
		}
	}
	return deepest
}

// bare matches a variable used without any default: $NAME or ${NAME}.
func bare(name string) *regexp.Regexp {
	name = regexp.QuoteMeta(name)
	return regexp.MustCompile(`\$(?:\{` + name + `\}|` + name + `(?:\W|$))`)
}

// withDefault matches a variable used with one of the operators that ask whether it is set.
func withDefault(name string) *regexp.Regexp {
	return regexp.MustCompile(`\$\{` + regexp.QuoteMeta(name) + `[:?+-]`)
}

// obsoleteVersion matches the top-level version: that old files start with.
var obsoleteVersion = lazyregexp.New(`(?m)^["']?version["']?[ \t]*:`)

// leadingVersion matches it where it usually is, before everything else.
var leadingVersion = lazyregexp.New(`\A(?:[ \t\r]*(?:#.*)?\n|---[ \t\r]*\n)*(["']?version["']?[ \t]*:[ \t]*["']?[\w.]+["']?[ \t]*(?:#.*)?)(?:\r?\n|\z)`)

// warnings reports what was noticed while the files were read.
func (r *reading) warnings() {
	slices.Sort(r.unset.names)
	for _, name := range r.unset.names {
		file, line := r.files.findText(bare(name))
		r.o.Warn(Warning{File: file, Line: line, Text: fmt.Sprintf("the variable %q is not set; it counts as empty", name)})
	}
	for _, f := range r.files.given {
		if !bytes.Contains(f.content, []byte("version")) {
			continue
		}
		if at := obsoleteVersion.Get().FindIndex(f.content); at != nil {
			line := 1 + strings.Count(string(f.content[:at[0]]), "\n")
			r.o.Warn(Warning{File: f.name, Line: line, Field: "version", Text: "obsolete and ignored; remove it"})
		}
	}
}

// casts are the conversions of text to other types that the loader makes at certain paths. Those for fields that no file mentions are left out,
// since the loader tries every one of them on every value; where files include others, all stay. The booleans of YAML 1.1 ("yes", "off"), which
// are still understood, are warned of.
func (r *reading) casts(all map[tree.Path]interpolation.Cast) map[tree.Path]interpolation.Cast {
	useful := map[tree.Path]interpolation.Cast{}
	for path, cast := range all {
		if r.files.mayHave(path) {
			useful[path] = warningCast(path, cast, r.o.Warn)
		}
	}
	return useful
}

// mayHave reports whether a value can be at the path, judged by the names in it.
func (s *sources) mayHave(path tree.Path) bool {
	for _, f := range s.given {
		if bytes.Contains(f.content, []byte("include")) || bytes.Contains(f.content, []byte("extends")) {
			return true
		}
	}
	for _, part := range path.Parts() {
		if part == tree.PathMatchAll || part == tree.PathMatchList {
			continue
		}
		if !slices.ContainsFunc(s.given, func(f *source) bool { return bytes.Contains(f.content, []byte(part)) }) {
			return false
		}
	}
	return true
}

// oldBooleans are the words for true and false that YAML 1.2 does not have any more.
var oldBooleans = map[string]bool{"y": true, "yes": true, "on": true, "n": false, "no": false, "off": false}

func warningCast(path tree.Path, cast interpolation.Cast, warn func(Warning)) interpolation.Cast {
	v, err := cast("true")
	if _, boolean := v.(bool); !boolean || err != nil {
		return cast
	}
	return func(text string) (any, error) {
		b, old := oldBooleans[strings.ToLower(text)]
		if !old {
			return cast(text)
		}
		warn(Warning{Field: strings.ReplaceAll(path.String(), "*.", ""), Text: fmt.Sprintf("%q is read as %t; write %t", text, b, b)})
		return b, nil
	}
}

// registerRawEnvFiles teaches compose-go the env_file format "raw": NAME=VALUE lines as `docker run --env-file` reads them, without quotes or
// variables. compose-go keeps its formats in a variable of its own, hence once per process.
var registerRawEnvFiles = sync.OnceFunc(func() { dotenv.RegisterFormat("raw", parseRawEnv) })

func parseRawEnv(r io.Reader, file string, vars map[string]string, lookup func(string) (string, bool)) error {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, set := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return fmt.Errorf("%s:%d: %q is not a variable's name", file, n, name)
		}
		if !set {
			if value, set = lookup(name); !set {
				continue
			}
		}
		vars[name] = value
	}
	return lines.Err()
}
