// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"io"
	"maps"
	"path"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
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

// vars are variables of a stage.
type vars map[string]string

// mostNested bounds the variables in a word: nested ones take twice the time for each level.
const mostNested = 8

// expand replaces the variables in a word, with the operators that Dockerfiles and Compose files share; what is not set is empty.
func (v vars) expand(word string) (string, error) {
	if !strings.Contains(word, "$") {
		return word, nil
	}
	if strings.Count(word, "${") > mostNested {
		return "", fmt.Errorf("more than %d variables in one word", mostNested)
	}
	return template.SubstituteWithOptions(word, func(name string) (string, bool) {
		value, ok := v[name]
		return value, ok
	}, template.WithoutLogging)
}

// dockerfile reads one file.
type dockerfile struct {
	args   map[string]string // of the build
	global vars              // ARGs before the first FROM
	stages []*stage
}

// parseDockerfile reads the stages of a Dockerfile.
func parseDockerfile(r io.Reader, args map[string]string) ([]*stage, error) {
	list, err := readInstructions(r)
	if err != nil {
		return nil, err
	}
	d := &dockerfile{args: args, global: vars{}}
	for _, i := range list {
		if err := d.line(i); err != nil {
			return nil, err
		}
	}
	return d.stages, nil
}

// line takes in one instruction.
func (d *dockerfile) line(i instruction) error {
	keyword, args := i.keyword, i.args
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
		for n := range s.copies {
			s.copies[n].run = true
		}
		for _, flag := range i.flags {
			s.need(mountFrom(flag))
		}
	case "copy", "add":
		return d.copy(s, i)
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
	base, err := d.global.expand(args[0])
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
		value, err := env.expand(value)
		if err != nil {
			return err
		}
		env[name] = value
	}
	return nil
}

// setEnv sets variables: NAME=value …, or the older NAME value.
func (d *dockerfile) setEnv(env vars, args []string) error {
	if len(args) > 1 && !strings.Contains(args[0], "=") {
		args = []string{args[0] + "=" + strings.Join(args[1:], " ")}
	}
	before := maps.Clone(env)
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		value, err := before.expand(value)
		if err != nil {
			return err
		}
		env[name] = value
	}
	return nil
}

// enter follows WORKDIR.
func (d *dockerfile) enter(s *stage, args []string) error {
	if len(args) == 0 {
		return nil
	}
	dir, err := s.env.expand(args[0])
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
func (d *dockerfile) copy(s *stage, i instruction) error {
	for _, flag := range i.flags {
		if from, ok := strings.CutPrefix(flag, "--from="); ok {
			s.need(from)
			return nil
		}
	}
	if len(i.args) < 2 || i.heredoc {
		return nil // the content is in the Dockerfile itself
	}
	c := copyLine{text: i.text}
	for n, word := range i.args {
		word, err := s.env.expand(word)
		if err != nil {
			return err
		}
		if n == len(i.args)-1 {
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
