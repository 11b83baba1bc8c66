// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"
)

// PublishedFile is one file of a published project.
type PublishedFile struct {
	// Name is the file's name; all lie in one folder.
	Name    string
	Content []byte
	// Kind is what the file is.
	Kind PublishedKind
}

// PublishedKind is what a published file is.
type PublishedKind int

// The kinds of published files.
const (
	PublishedCompose  PublishedKind = iota // a Compose file, or an override of those before it
	PublishedExtended                      // a Compose file that another extends
	PublishedEnv                           // an env file
)

// PublishFiles are the files of a loaded project as they are published: the Compose files as they are written, variables and all, but for the
// names of the files that they extend and take variables from, which come along under names of their own. Env files come along only with env.
func PublishFiles(p *types.Project, env bool) ([]PublishedFile, error) {
	b := &publisher{p: p, env: env, named: map[string]string{}}
	for _, file := range p.ComposeFiles {
		if file == "-" {
			return nil, &hintedError{errors.New("publish the project: a Compose file from standard input is not kept"), "write it to a file first"}
		}
		if err := b.add(file, filepath.Base(file), PublishedCompose); err != nil {
			return nil, err
		}
	}
	return b.files, nil
}

type publisher struct {
	p     *types.Project
	env   bool
	files []PublishedFile
	named map[string]string // names under which files come along, by path
}

// add takes a Compose file and the files that it names.
func (b *publisher) add(path, name string, kind PublishedKind) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read compose file: %w", err)
	}
	at := len(b.files)
	b.files = append(b.files, PublishedFile{Name: name, Kind: kind})
	dir := b.p.WorkingDir
	if kind == PublishedExtended {
		dir = filepath.Dir(path)
	}
	if b.files[at].Content, err = b.rewrite(path, dir, content); err != nil {
		return err
	}
	return nil
}

// rewrite gives the files that a Compose file names their new names. A file that names none stays as it is, to the byte.
func (b *publisher) rewrite(path, dir string, content []byte) ([]byte, error) {
	var out bytes.Buffer
	changed := false
	documents := yaml.NewDecoder(bytes.NewReader(content))
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for {
		var doc yaml.Node
		if err := documents.Decode(&doc); err != nil {
			break // the end; what cannot be parsed has failed before
		}
		if err := b.rewriteDocument(&doc, path, dir, &changed); err != nil {
			return nil, err
		}
		if err := encoder.Encode(&doc); err != nil {
			return nil, fmt.Errorf("rewrite %q: %w", path, err)
		}
	}
	if !changed {
		return content, nil
	}
	return out.Bytes(), encoder.Close()
}

func (b *publisher) rewriteDocument(doc *yaml.Node, path, dir string, changed *bool) error {
	if len(doc.Content) == 0 {
		return nil
	}
	if line, n := child(doc.Content[0], "include"); n != nil && len(n.Content) > 0 {
		if err := remoteIncludes(n, path, line); err != nil {
			return err
		}
	}
	_, services := child(doc.Content[0], "services")
	if services == nil {
		return nil
	}
	for i := 1; i < len(services.Content); i += 2 {
		service := services.Content[i]
		if _, extends := child(service, "extends"); extends != nil {
			if _, file := child(extends, "file"); file != nil && !isRemote(file.Value) {
				if err := b.bring(file, dir, PublishedExtended, changed); err != nil {
					return err
				}
			}
		}
		_, envFile := child(service, "env_file")
		for _, n := range envNodes(envFile) {
			if err := b.bring(n, dir, PublishedEnv, changed); err != nil {
				return err
			}
		}
	}
	return nil
}

// remoteIncludes refuses local files: they may lie anywhere, and name others again.
func remoteIncludes(include *yaml.Node, path string, line int) error {
	for _, item := range include.Content {
		paths := []*yaml.Node{item}
		if _, p := child(item, "path"); p != nil {
			paths = []*yaml.Node{p}
			if p.Kind == yaml.SequenceNode {
				paths = p.Content
			}
		}
		for _, p := range paths {
			if !isRemote(p.Value) {
				return &FieldError{File: path, Line: line, Field: "include", Err: errors.New("a project that includes local files cannot be published")}
			}
		}
	}
	return nil
}

// envNodes are the paths in an env_file, which may be one, a list, or a list of mappings.
func envNodes(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	}
	var out []*yaml.Node
	for _, item := range n.Content {
		if item.Kind == yaml.ScalarNode {
			out = append(out, item)
		} else if _, path := child(item, "path"); path != nil {
			out = append(out, path)
		}
	}
	return out
}

// bring takes a file that is named at n along, and renames it there.
func (b *publisher) bring(n *yaml.Node, dir string, kind PublishedKind, changed *bool) error {
	if kind == PublishedEnv && !b.env || strings.Contains(n.Value, "$") {
		return nil
	}
	path := abs(dir, n.Value)
	name, known := b.named[path]
	if !known {
		from, err := filepath.Rel(b.p.WorkingDir, path)
		if err != nil {
			from = path
		}
		sum := sha256.Sum256([]byte(filepath.ToSlash(from)))
		name = hex.EncodeToString(sum[:]) + map[PublishedKind]string{PublishedEnv: ".env", PublishedExtended: ".yaml"}[kind]
		b.named[path] = name
		if kind == PublishedExtended {
			err = b.add(path, name, kind)
		} else {
			err = b.addEnv(path, name)
		}
		if err != nil {
			return err
		}
	}
	n.Value, *changed = name, true
	return nil
}

func (b *publisher) addEnv(path, name string) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it need not be there, or loading would have failed
	}
	if err != nil {
		return fmt.Errorf("read env file: %w", err)
	}
	b.files = append(b.files, PublishedFile{Name: name, Content: content, Kind: PublishedEnv})
	return nil
}

// ImagesOnly is a project that says nothing but which images the services run: a Compose file that overrides others.
func ImagesOnly(p *types.Project) *types.Project {
	out := &types.Project{Services: types.Services{}}
	for name, from := range p.Services {
		if from.Image == "" {
			continue
		}
		var s types.ServiceConfig
		s.Image = from.Image
		out.Services[name] = s
	}
	return out
}

// secretPatterns find what is likely to be a secret in a text.
var secretPatterns = sync.OnceValue(func() map[string]*regexp.Regexp {
	return map[string]*regexp.Regexp{
		"private key":      regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----`),
		"AWS access key":   regexp.MustCompile(`\b(AKIA|ASIA)[0-9A-Z]{16}\b`),
		"GitHub token":     regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})\b`),
		"GitLab token":     regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20,}\b`),
		"Slack token":      regexp.MustCompile(`\bxox[abprs]-[A-Za-z0-9-]{10,}\b`),
		"JSON web token":   regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*`),
		"password in URL":  regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^/\s:@$]+:[^/\s:@${]+@`),
		"password or key":  regexp.MustCompile(`(?i)\b[a-z0-9_]*(password|passwd|secret|token|api_?key|private_?key)[a-z0-9_]*["']?\s*[:=]\s*["']?[^\s"'${}\[\],/][^\s"'${}]{3,}`),
		"basic auth entry": regexp.MustCompile(`(?i)"auth"\s*:\s*"[A-Za-z0-9+/=]{8,}"`),
	}
})

// Finding is something in a file that a user may not want to give away.
type Finding struct {
	File, What string
	Line       int
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.What) }

// FindSecrets finds what looks like a secret in files that are to be published, by file and line.
func FindSecrets(files []PublishedFile) []Finding {
	var out []Finding
	for _, f := range files {
		line := 0
		for text := range bytes.Lines(f.Content) {
			line++
			for _, what := range slices.Sorted(maps.Keys(secretPatterns())) {
				if secretPatterns()[what].Match(text) {
					out = append(out, Finding{f.Name, "looks like a " + what, line})
					break
				}
			}
		}
	}
	return out
}
