// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/dotenv"
)

// found is where a project's files are, and the environment that they are read with.
type found struct {
	files    []string // absolute, or "-"
	dir      string   // the project's folder
	env      map[string]string
	envFiles []string // as asked for; without the default .env
}

// locate finds the Compose files and the .env files, in docker compose's order: the .env of the folder where the user stands may name the
// Compose files, whose folder then has its own .env.
func locate(o LoadOptions) (found, error) {
	f := found{env: maps.Clone(o.Environment), files: absAll(o.WorkingDir, o.Files)}
	if f.env == nil {
		f.env = map[string]string{}
	}
	if _, ok := f.env["PWD"]; !ok {
		f.env["PWD"] = o.WorkingDir
	}
	files := o.EnvFiles
	if len(files) == 0 {
		files = strings.FieldsFunc(o.Environment[envFilesVariable], func(r rune) bool { return r == ',' })
	}
	f.envFiles = absAll(o.WorkingDir, files)
	if err := f.readEnv(o); err != nil {
		return f, err
	}
	if err := f.find(o); err != nil {
		return f, err
	}
	return f, f.readEnv(o)
}

// find fills in the Compose files unless they were given.
func (f *found) find(o LoadOptions) error {
	if len(f.files) > 0 {
		f.dir = f.folder(o)
		return nil
	}
	if list := f.env[consts.ComposeFilePath]; list != "" {
		sep := f.env[consts.ComposePathSeparator]
		if sep == "" {
			sep = string(os.PathListSeparator)
		}
		f.files = absAll(o.WorkingDir, strings.Split(list, sep))
	} else if f.files = search(f.folder(o), o.Warn); len(f.files) == 0 {
		return &noFileError{dir: f.folder(o)}
	}
	f.dir = f.folder(o)
	return nil
}

// folder is the project's folder as far as it is known: --project-directory, that of the first file, where the user stands.
func (f *found) folder(o LoadOptions) string {
	if o.ProjectDir != "" {
		return abs(o.WorkingDir, o.ProjectDir)
	}
	for _, file := range f.files {
		if file != "-" && !isRemote(file) {
			return filepath.Dir(file)
		}
	}
	return o.WorkingDir
}

// readEnv adds the variables of the env files; those already set stay.
func (f *found) readEnv(o LoadOptions) error {
	files := f.envFiles
	if len(files) == 0 {
		def, err := f.defaultEnvFile(o)
		if err != nil || def == "" {
			return err
		}
		files = []string{def}
	}
	vars, err := dotenv.GetEnvFromFile(f.env, files)
	if err != nil {
		return fmt.Errorf("read env file: %w", err)
	}
	for k, v := range vars {
		if _, set := f.env[k]; !set {
			f.env[k] = v
		}
	}
	return nil
}

// defaultEnvFile is the .env file in the project's folder, or empty if there is none or it is not to be read.
func (f *found) defaultEnvFile(o LoadOptions) (string, error) {
	if v, ok := o.Environment[consts.ComposeDisableDefaultEnvFile]; ok {
		if off, err := strconv.ParseBool(v); err != nil {
			return "", fmt.Errorf("read %s: %q is neither true nor false", consts.ComposeDisableDefaultEnvFile, v)
		} else if off {
			return "", nil
		}
	}
	file := filepath.Join(f.folder(o), ".env")
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		o.Warn(Warning{File: file, Text: "not allowed to read it; left out"})
		return "", nil
	case err == nil && !info.IsDir():
		return file, nil
	}
	return "", nil // there need not be one
}

// search looks for a Compose file and its override in dir and the folders above it.
func search(dir string, warn func(Warning)) []string {
	for {
		if file := pick(dir, cli.DefaultFileNames, warn); file != "" {
			files := []string{file}
			if over := pick(dir, cli.DefaultOverrideFileNames, warn); over != "" {
				files = append(files, over)
			}
			return files
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

// pick is the first of the names that exists in dir.
func pick(dir string, names []string, warn func(Warning)) string {
	var there []string
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			there = append(there, name)
		}
	}
	switch len(there) {
	case 0:
		return ""
	case 1:
	default:
		warn(Warning{File: filepath.Join(dir, there[0]), Text: "used although there are also " + strings.Join(there[1:], ", ") + " beside it"})
	}
	return filepath.Join(dir, there[0])
}

func abs(dir, file string) string {
	if file == "-" || isRemote(file) || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

func absAll(dir string, files []string) []string {
	var all []string
	for _, f := range files {
		if f != "" {
			all = append(all, abs(dir, f))
		}
	}
	return all
}

// noFileError says where Compose files were searched for.
type noFileError struct{ dir string }

func (e *noFileError) Error() string {
	return fmt.Sprintf("no compose file found in %s or any folder above it", e.dir)
}

// Hint says what a Compose file is called.
func (e *noFileError) Hint() string {
	return "create a " + cli.DefaultFileNames[0] + ", or name a file with -f"
}

// Is makes the error a [fs.ErrNotExist].
func (e *noFileError) Is(target error) bool { return target == fs.ErrNotExist }
