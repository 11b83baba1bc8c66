// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// stage is one stage of a Dockerfile, as far as watching is concerned.
type stage struct {
	name, from string
	needs      []string // stages that it takes files from
	copies     []copyLine
	runs       bool // it has a RUN

	env vars
	// workdir is empty while it is the base image's.
	workdir string
}

// copyLine is a COPY or ADD of files of the build context.
type copyLine struct {
	text string // as it stands in the file
	from []string
	to   string // absolute; with a slash at the end for a folder
	run  bool   // a RUN of the same stage follows
	// problem says why it cannot be used.
	problem string
}

// vars are variables of a stage; they implement shell.EnvGetter.
type vars map[string]string

// Get looks a variable up.
func (v vars) Get(name string) (string, bool) {
	value, ok := v[name]
	return value, ok
}

// Keys lists the names.
func (v vars) Keys() []string { return slices.Sorted(maps.Keys(v)) }

// dockerfile reads one file.
type dockerfile struct {
	lex    *shell.Lex
	args   map[string]string // of the build
	global vars              // ARGs before the first FROM
	stages []*stage
}

// parseDockerfile reads the stages of a Dockerfile.
func parseDockerfile(r io.Reader, args map[string]string) ([]*stage, error) {
	ast, err := parser.Parse(r)
	if err != nil {
		return nil, err
	}
	d := &dockerfile{lex: shell.NewLex(ast.EscapeToken), args: args, global: vars{}}
	for _, n := range ast.AST.Children {
		if err := d.line(n); err != nil {
			return nil, err
		}
	}
	return d.stages, nil
}

// words are the arguments of an instruction.
func words(n *parser.Node) []string {
	var list []string
	for n = n.Next; n != nil; n = n.Next {
		list = append(list, n.Value)
	}
	return list
}

// line takes in one instruction.
func (d *dockerfile) line(n *parser.Node) error {
	keyword, args := strings.ToLower(n.Value), words(n)
	if keyword == "from" {
		return d.from(args)
	}
	if len(d.stages) == 0 {
		if keyword == "arg" {
			return d.arg(d.global, args, true)
		}
		return nil
	}
	s := d.stages[len(d.stages)-1]
	switch keyword {
	case "arg":
		return d.arg(s.env, args, false)
	case "env":
		return d.setEnv(s.env, args)
	case "workdir":
		return d.enter(s, args)
	case "run":
		s.runs = true
		for i := range s.copies {
			s.copies[i].run = true
		}
		for _, flag := range n.Flags {
			s.need(mountFrom(flag))
		}
	case "copy", "add":
		return d.copy(s, n, args)
	}
	return nil
}

// mountFrom is the stage that a RUN --mount takes files from, if it does.
func mountFrom(flag string) string {
	options, ok := strings.CutPrefix(flag, "--mount=")
	if !ok {
		return ""
	}
	for option := range strings.SplitSeq(options, ",") {
		if from, ok := strings.CutPrefix(option, "from="); ok {
			return from
		}
	}
	return ""
}

func (s *stage) need(name string) {
	if name != "" {
		s.needs = append(s.needs, name)
	}
}

// from begins a stage: FROM base [AS name].
func (d *dockerfile) from(args []string) error {
	if len(args) == 0 {
		return nil
	}
	base, _, err := d.lex.ProcessWord(args[0], d.global)
	if err != nil {
		return err
	}
	s := &stage{from: base, env: vars{}}
	if base == "scratch" {
		s.workdir = "/"
	}
	for _, before := range d.stages {
		if strings.EqualFold(before.name, base) && before.name != "" {
			s.env, s.workdir = maps.Clone(before.env), before.workdir
		}
	}
	if len(args) == 3 && strings.EqualFold(args[1], "as") {
		s.name = args[2]
	}
	d.stages = append(d.stages, s)
	return nil
}

// arg declares build arguments: NAME or NAME=default; the build's own value wins, then that of a global ARG.
func (d *dockerfile) arg(env vars, args []string, global bool) error {
	for _, arg := range args {
		name, value, set := strings.Cut(arg, "=")
		if v, ok := d.args[name]; ok {
			env[name] = v
			continue
		}
		if !set && !global {
			if v, ok := d.global[name]; ok {
				env[name] = v
			}
			continue
		}
		value, _, err := d.lex.ProcessWord(value, env)
		if err != nil {
			return err
		}
		env[name] = value
	}
	return nil
}

// setEnv sets variables; the parser gives name, value and separator in turn.
func (d *dockerfile) setEnv(env vars, args []string) error {
	before := maps.Clone(env)
	for i := 0; i+1 < len(args); i += 3 {
		value, _, err := d.lex.ProcessWord(args[i+1], before)
		if err != nil {
			return err
		}
		env[args[i]] = value
	}
	return nil
}

// enter follows WORKDIR.
func (d *dockerfile) enter(s *stage, args []string) error {
	if len(args) == 0 {
		return nil
	}
	dir, _, err := d.lex.ProcessWord(args[0], s.env)
	switch {
	case err != nil:
		return err
	case path.IsAbs(dir):
		s.workdir = path.Clean(dir)
	case s.workdir != "":
		s.workdir = path.Join(s.workdir, dir)
	}
	return nil
}

// copy takes in COPY and ADD.
func (d *dockerfile) copy(s *stage, n *parser.Node, args []string) error {
	for _, flag := range n.Flags {
		if from, ok := strings.CutPrefix(flag, "--from="); ok {
			s.need(from)
			return nil
		}
	}
	if len(args) < 2 || len(n.Heredocs) > 0 {
		return nil // the content is in the Dockerfile itself
	}
	c := copyLine{text: n.Original}
	for i, word := range args {
		word, _, err := d.lex.ProcessWord(word, s.env)
		if err != nil {
			return err
		}
		if i == len(args)-1 {
			c.to = word
		} else if !remote(word) {
			c.from = append(c.from, word)
		}
	}
	if len(c.from) == 0 {
		return nil
	}
	if !path.IsAbs(c.to) {
		into := strings.HasSuffix(c.to, "/") || path.Base(c.to) == "."
		if s.workdir == "" {
			c.problem = "its folder in the container is the base image's, which is not known: add a WORKDIR with an absolute path"
		}
		if c.to = path.Join(s.workdir, c.to); into {
			c.to += "/"
		}
	}
	s.copies = append(s.copies, c)
	return nil
}

// remote reports whether a source of ADD is not in the build context.
func remote(source string) bool {
	return strings.Contains(source, "://") || strings.HasPrefix(source, "git@")
}
