// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/tree"
)

// unsetVariables remembers the variables that were used without being set and without a default.
type unsetVariables struct{ names []string }

// substitute replaces the variables in a value of a Compose file.
func (u *unsetVariables) substitute(text string, lookup template.Mapping) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	var missed []string
	result, err := template.SubstituteWithOptions(text, func(name string) (string, bool) {
		v, ok := lookup(name)
		if !ok {
			missed = append(missed, name)
		}
		return v, ok
	}, template.WithoutLogging)
	for _, name := range missed {
		if bare(name).MatchString(text) && !slices.Contains(u.names, name) {
			u.names = append(u.names, name)
		}
	}
	return result, err
}

// bare matches a variable used without any default: $NAME or ${NAME}.
func bare(name string) *regexp.Regexp {
	name = regexp.QuoteMeta(name)
	return regexp.MustCompile(`\$(?:\{` + name + `\}|` + name + `(?:\W|$))`)
}

// obsoleteVersion matches the top-level version: that old files start with.
var obsoleteVersion = regexp.MustCompile(`(?m)^["']?version["']?\s*:`)

// warnings reports what was noticed while the files were read.
func (r *reading) warnings() {
	slices.Sort(r.unset.names)
	for _, name := range r.unset.names {
		file, line := r.files.findText(bare(name))
		r.o.Warn(Warning{File: file, Line: line, Text: fmt.Sprintf("the variable %q is not set; it counts as empty", name)})
	}
	for _, f := range r.files.given {
		if at := obsoleteVersion.FindIndex(f.content); at != nil {
			line := 1 + strings.Count(string(f.content[:at[0]]), "\n")
			r.o.Warn(Warning{File: f.name, Line: line, Field: "version", Text: "obsolete and ignored; remove it"})
		}
	}
}

// warnOfOldBooleans wraps the casts so that the booleans of YAML 1.1 ("yes", "off"), which are still understood, are mentioned.
func warnOfOldBooleans(casts map[tree.Path]interpolation.Cast, warn func(Warning)) map[tree.Path]interpolation.Cast {
	wrapped := maps.Clone(casts)
	for path, cast := range casts {
		wrapped[path] = func(text string) (any, error) {
			v, err := cast(text)
			if b, ok := v.(bool); ok && err == nil && !strings.EqualFold(text, fmt.Sprint(b)) {
				warn(Warning{Field: strings.ReplaceAll(path.String(), "*.", ""), Text: fmt.Sprintf("%q is read as %t; write %t", text, b, b)})
			}
			return v, err
		}
	}
	return wrapped
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
