// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// matcher matches paths on the host with patterns as in .dockerignore, relative to a folder.
type matcher struct {
	dir      string
	patterns *patternmatcher.PatternMatcher
	// exceptions: something below a folder that matches may not match.
	exceptions bool
}

func newMatcher(dir string, patterns []string) (matcher, error) {
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return matcher{}, fmt.Errorf("read the patterns %q: %w", patterns, err)
	}
	return matcher{dir: dir, patterns: pm, exceptions: pm.Exclusions()}, nil
}

func (m matcher) match(name string) bool {
	if !below(m.dir, name) {
		return false
	}
	rel, err := filepath.Rel(m.dir, name)
	if err != nil || rel == "." {
		return false
	}
	ok, err := m.patterns.MatchesOrParentMatches(rel)
	return ok && err == nil
}

// fleetingNames are folders and files that version control, editors and desktops keep beside the sources: they come and go, and no
// container wants them. "4913" is vi's probe of a folder.
var fleetingNames = []string{".git", ".hg", ".svn", ".jj", ".idea", ".DS_Store", "4913"}

// fleeting reports whether a path relative to a rule's is, or lies in, one of those, or is an editor's swap or backup file.
func fleeting(rel string) bool {
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		if slices.Contains(fleetingNames, part) {
			return true
		}
	}
	base := filepath.Base(rel)
	for _, end := range []string{"~", ".swp", ".swo", ".swx", "___jb_tmp___", "___jb_old___"} {
		if strings.HasSuffix(base, end) {
			return true
		}
	}
	return strings.HasPrefix(base, ".#") || strings.HasPrefix(base, ".goutputstream-") || strings.HasPrefix(base, "#") && strings.HasSuffix(base, "#")
}

// ignoreOf is what no rule of a service is about: what the build's .dockerignore leaves out.
func ignoreOf(s types.ServiceConfig) ([]matcher, error) {
	if s.Build == nil || !filepath.IsAbs(s.Build.Context) {
		return nil, nil
	}
	patterns, err := dockerignore(*s.Build)
	if err != nil || len(patterns) == 0 {
		return nil, err
	}
	m, err := newMatcher(filepath.Clean(s.Build.Context), patterns)
	return []matcher{m}, err
}

// dockerignore reads the patterns of a build: <Dockerfile>.dockerignore, else .dockerignore in the context, else none.
func dockerignore(b types.BuildConfig) ([]string, error) {
	dockerfile := b.Dockerfile
	if dockerfile == "" {
		dockerfile = "Dockerfile"
	}
	if !filepath.IsAbs(dockerfile) {
		dockerfile = filepath.Join(b.Context, dockerfile)
	}
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(b.Context, ".dockerignore")} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patterns, err := ignorefile.ReadAll(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", name, err)
		}
		return patterns, nil
	}
	return nil, nil
}
