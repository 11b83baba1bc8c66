// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
)

// Infer proposes rules for a service from its Dockerfile, and says in notes which lines it could not use.
//
// What a COPY or ADD puts into the final image as it is, is synced to the same place. What a later RUN of the same stage, or another stage, makes something
// of, needs a rebuild, as does a change of the Dockerfile.
func Infer(p *types.Project, s types.ServiceConfig) (rules []compose.WatchRule, notes []string, err error) {
	if s.Build == nil {
		return nil, []string{fmt.Sprintf("service %q is not built, its image has no Dockerfile to read", s.Name)}, nil
	}
	if !filepath.IsAbs(s.Build.Context) {
		return nil, []string{fmt.Sprintf("service %q is built from %s, which is not a folder here", s.Name, s.Build.Context)}, nil
	}
	text, file, err := readDockerfile(*s.Build)
	if err != nil {
		return nil, nil, err
	}
	stages, err := parseDockerfile(strings.NewReader(text), buildArgs(p, *s.Build))
	if err != nil {
		return nil, nil, fmt.Errorf("read %q: %w", cmp.Or(file, "dockerfile_inline"), err)
	}
	in := &inference{service: s, stages: stages, seen: map[string]bool{}}
	if err := in.run(); err != nil {
		return nil, nil, err
	}
	if file != "" {
		if err := in.add(types.WatchActionRebuild, file, "", nil); err != nil {
			return nil, nil, err
		}
	}
	return in.rules, in.notes, nil
}

// readDockerfile gives the text of a build's Dockerfile and where it is, which is empty for an inline one.
func readDockerfile(b types.BuildConfig) (text, file string, err error) {
	if b.DockerfileInline != "" {
		return b.DockerfileInline, "", nil
	}
	file = b.Dockerfile
	if file == "" {
		file = "Dockerfile"
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(b.Context, file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", file, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, 4<<20))
	return string(content), file, err
}

// buildArgs are the arguments that the Compose file gives the build.
func buildArgs(p *types.Project, b types.BuildConfig) map[string]string {
	args := map[string]string{}
	for name, value := range b.Args {
		if value != nil {
			args[name] = *value
		} else if v, ok := p.Environment[name]; ok {
			args[name] = v
		}
	}
	return args
}

// inference turns copies into rules.
type inference struct {
	service types.ServiceConfig
	stages  []*stage
	rules   []compose.WatchRule
	notes   []string
	seen    map[string]bool
}

// run goes through the stage that is built, those it starts from, and those it takes files from.
func (in *inference) run() error {
	target := in.find(in.service.Build.Target)
	if target == nil {
		return fmt.Errorf("service %q: its Dockerfile has no stage %q", in.service.Name, in.service.Build.Target)
	}
	visited := map[*stage]bool{}
	for s := target; s != nil && !visited[s]; s = in.find(s.from) {
		visited[s] = true
		for _, c := range s.copies {
			if err := in.take(c, c.run || s.uses(target, in)); err != nil {
				return err
			}
		}
		if s.from == "" {
			break
		}
	}
	return in.takeOthers(target, visited)
}

// uses reports whether a stage that the target starts from is run over by a later one: its copies are in the image all the same.
func (s *stage) uses(target *stage, in *inference) bool {
	for t := target; t != nil && t != s; t = in.find(t.from) {
		if t.runs {
			return true
		}
		if t.from == "" {
			break
		}
	}
	return false
}

// takeOthers goes through the stages whose files are taken: what they copy is made something of.
func (in *inference) takeOthers(target *stage, visited map[*stage]bool) error {
	var queue []*stage
	need := func(s *stage) {
		for _, name := range append(slices.Clone(s.needs), s.from) {
			if x := in.find(name); name != "" && x != nil && !visited[x] {
				visited[x] = true
				queue = append(queue, x)
			}
		}
	}
	for _, s := range in.stages {
		if visited[s] {
			need(s)
		}
	}
	need(target)
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		for _, c := range s.copies {
			if err := in.take(c, true); err != nil {
				return err
			}
		}
		need(s)
	}
	return nil
}

// find finds a stage by name or number; the empty name is the last one's. It is nil for an image.
func (in *inference) find(name string) *stage {
	if name == "" {
		if len(in.stages) == 0 {
			return nil
		}
		return in.stages[len(in.stages)-1]
	}
	for i, s := range in.stages {
		if strings.EqualFold(s.name, name) || fmt.Sprint(i) == name {
			return s
		}
	}
	return nil
}

// take makes rules of one COPY.
func (in *inference) take(c copyLine, rebuild bool) error {
	if c.problem != "" {
		in.notes = append(in.notes, fmt.Sprintf("service %q: %s: %s", in.service.Name, c.text, c.problem))
		return nil
	}
	into := strings.HasSuffix(c.to, "/") || len(c.from) > 1
	for _, source := range c.from {
		dir, pattern := splitPattern(source)
		from := filepath.Join(in.service.Build.Context, filepath.FromSlash(dir))
		to := c.to
		var include []string
		switch info, err := os.Stat(from); {
		case pattern != "":
			include = []string{pattern}
		case err != nil:
			in.notes = append(in.notes, fmt.Sprintf("service %q: %s: %s is not there", in.service.Name, c.text, from))
			continue
		case !info.IsDir() && (into || to == "/"):
			to = path.Join(to, path.Base(dir))
		}
		action := types.WatchActionSync
		if rebuild {
			action, to = types.WatchActionRebuild, ""
		}
		if to != "" {
			to = path.Clean(to)
		}
		if err := in.add(action, from, to, include); err != nil {
			return err
		}
	}
	return nil
}

// add adds a rule unless it is there.
func (in *inference) add(action types.WatchAction, from, to string, include []string) error {
	key := fmt.Sprintf("%s %s %s %q", action, from, to, include)
	if in.seen[key] {
		return nil
	}
	in.seen[key] = true
	r, err := compose.NewInferredRule(in.service, action, from, to, include)
	if err == nil {
		in.rules = append(in.rules, r)
	}
	return err
}

// splitPattern splits a COPY's source into the folder before the first part with a wildcard, and the rest.
func splitPattern(source string) (dir, pattern string) {
	parts := strings.Split(path.Clean("/" + source)[1:], "/")
	for i, part := range parts {
		if strings.ContainsAny(part, "*?[") {
			return path.Join(parts[:i]...), path.Join(parts[i:]...)
		}
	}
	return path.Join(parts...), ""
}
