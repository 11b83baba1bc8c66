// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"io"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// LoadOptions say which Compose files make up a project and how they are read. Nothing is taken from the process: neither its
// environment nor its working directory.
type LoadOptions struct {
	// WorkingDir is where the user stands; Compose files are searched for here and above. Must be absolute.
	WorkingDir string
	// ProjectDir is the folder that relative paths are resolved against; empty: that of the first Compose file.
	ProjectDir string
	// Files are the Compose files, "-" being Stdin; empty: COMPOSE_FILE, else a search.
	Files []string
	Stdin io.Reader
	// ProjectName overrides the name; empty: COMPOSE_PROJECT_NAME, the files' name:, the folder's name.
	ProjectName string
	// Profiles to enable; empty: COMPOSE_PROFILES.
	Profiles []string
	// EnvFiles replace the default .env; empty: COMPOSE_ENV_FILES, else .env beside the Compose file.
	EnvFiles []string
	// Environment is the process's environment.
	Environment map[string]string
	// Services are enabled, with all they need, even when they are in an inactive profile; others are left out. Empty: all
	// services of the active profiles.
	Services []string

	Compatibility    bool // container names with "_" in place of "-"
	AllResources     bool // keep networks, volumes, … that no service uses
	NoInterpolate    bool
	NoNormalize      bool
	NoPathResolution bool
	NoConsistency    bool
	NoEnvResolution  bool // leave env_file unread and variables without a value unresolved

	// Warn is told of what the user should know but that stops nothing. Nil: forget it.
	Warn func(Warning)
}

// Load reads Compose files into a project, which nothing changes afterwards.
func Load(ctx context.Context, o LoadOptions) (*types.Project, error) {
	details := types.ConfigDetails{WorkingDir: o.WorkingDir, Environment: o.Environment}
	for _, f := range o.Files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: f})
	}
	if len(o.Files) == 0 {
		details.ConfigFiles = []types.ConfigFile{{Filename: filepath.Join(o.WorkingDir, "compose.yaml")}}
	}
	p, err := loader.LoadWithContext(ctx, details, func(l *loader.Options) {
		l.SetProjectName(loader.NormalizeProjectName(filepath.Base(o.WorkingDir)), o.ProjectName != "")
	})
	if err != nil {
		return nil, err
	}
	for _, f := range details.ConfigFiles {
		p.ComposeFiles = append(p.ComposeFiles, f.Filename)
	}
	return p, nil
}

// Model reads Compose files into a tree of plain values, for printing; see [LoadOptions].
func Model(ctx context.Context, o LoadOptions) (map[string]any, error) {
	details := types.ConfigDetails{WorkingDir: o.WorkingDir, Environment: o.Environment}
	for _, f := range o.Files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: f})
	}
	return loader.LoadModelWithContext(ctx, details)
}
