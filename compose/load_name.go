// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"gopkg.in/yaml.v3"
)

// Name finds the name that [Load] would give the project, with as little reading as possible: the files are found and looked at for a name, not
// validated. It is for commands that only look at what runs.
func Name(ctx context.Context, o LoadOptions) (string, error) {
	if slices.Contains(o.Files, "-") { // standard input can be read only once
		return loadedName(ctx, o)
	}
	r, err := newReading(ctx, o)
	if err != nil {
		return "", err
	}
	if name := cmp.Or(o.ProjectName, r.env[consts.ComposeProjectName]); name != "" {
		if loader.NormalizeProjectName(name) != name {
			return "", invalidNameError(name)
		}
		return name, nil
	}
	if !r.files.nameProject() {
		if r.chooseName(); r.name != "" {
			return r.name, nil
		}
		return "", invalidNameError("")
	}
	if name, ok := r.files.plainName(); ok {
		return name, nil
	}
	return loadedName(ctx, o) // made of variables, or in no form that a name can have: all the loader's rules apply
}

func loadedName(ctx context.Context, o LoadOptions) (string, error) {
	p, err := Load(ctx, o)
	if err != nil {
		return "", err
	}
	return p.Name, nil
}

// plainName is the name that the last of the files to give one gives, if it needs neither interpolation nor correction.
func (s *sources) plainName() (name string, ok bool) {
	for _, f := range s.given {
		if !mayName(f.content) {
			continue
		}
		var top struct {
			Name string `yaml:"name"`
		}
		if yaml.Unmarshal(f.content, &top) != nil {
			return "", false
		}
		name = cmp.Or(top.Name, name)
	}
	return name, name != "" && !strings.Contains(name, "$") && loader.NormalizeProjectName(name) == name
}
