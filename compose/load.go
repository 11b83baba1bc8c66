// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/compose-spec/compose-go/v2/utils"
)

// LoadOptions say which Compose files make up a project and how they are read. Nothing is taken from the process: neither its
// environment nor its working directory (but "~" in a path is the home folder of the process's user).
type LoadOptions struct {
	// WorkingDir is where the user stands; Compose files are searched for here and above. It must be absolute.
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
	// EnvFiles replace the default .env; empty: COMPOSE_ENV_FILES, else .env in the project's folder.
	EnvFiles []string
	// Environment is the process's environment. It is not changed.
	Environment map[string]string
	// Services are enabled, with all they need, even when they are in an inactive profile; others are left out. Empty: all
	// services of the active profiles.
	Services []string

	Compatibility    bool // "_" in place of "-" in the names of containers and images
	AllResources     bool // keep networks, volumes, … that no service uses
	NoInterpolate    bool
	NoNormalize      bool
	NoPathResolution bool
	NoConsistency    bool
	NoEnvResolution  bool // leave env_file unread and variables without a value unresolved

	// FolderName gives the name that a project in a folder is named after; nil: the folder's own.
	FolderName func(dir string) string
	// Transform, when set, turns what the files say into the project that is wanted. It is given all services, those of inactive profiles
	// too, and must not change its argument. It may be called twice.
	Transform func(*types.Project) (*types.Project, error)

	// Remotes fetch Compose files that have an address instead of a path: given, included or extended. Without them addresses are refused.
	Remotes []loader.ResourceLoader

	// Cache keeps what files come to; nil: they are decoded each time. Only [Load] uses it.
	Cache Cache

	// Warn is told, before Load returns, of what the user should know but that stops nothing. Nil: forget it.
	Warn func(Warning)
}

// Variables that steer loading, beside those compose-go names.
const (
	envFilesVariable       = "COMPOSE_ENV_FILES"
	compatibilityVariable  = "COMPOSE_COMPATIBILITY"
	windowsPathsVariable   = "COMPOSE_CONVERT_WINDOWS_PATHS"
	defaultPlatformEnvName = "DOCKER_DEFAULT_PLATFORM"
)

// labelVersion is what [LabelVersion] says: the docker compose release whose labels, hashes and names these are. It is not the
// version of this program.
const labelVersion = "5.0.2"

// DockerComposeVersion is the docker compose release that projects are compatible with.
const DockerComposeVersion = labelVersion

// Load reads Compose files into a project, which nothing changes afterwards. Errors in the files name file and line; an error may have
// a Hint() string.
func Load(ctx context.Context, o LoadOptions) (*types.Project, error) {
	r, err := newReading(ctx, o)
	if err != nil {
		return nil, err
	}
	p, err := r.load(ctx)
	if err == nil && r.unset.ports {
		// The files use the ports that they publish: those are known only now.
		maps.Copy(r.env, PortVariables(p))
		r.unset = &unsetVariables{}
		p, err = r.load(ctx)
	}
	if err != nil {
		return nil, err
	}
	r.warnings()
	p.ComposeFiles = r.files.names()
	if r.compatibility {
		p.Environment[compatibilityVariable] = "true"
	}
	return r.finish(p)
}

// load reads the files and transforms what they say.
func (r *reading) load(ctx context.Context) (*types.Project, error) {
	r.chooseName()
	p, err := guard(func() (*types.Project, error) { return r.decode(ctx) })
	if err != nil {
		return nil, r.files.explain(err)
	}
	if r.o.Transform == nil {
		return p, nil
	}
	return r.o.Transform(p)
}

// Model reads Compose files into a tree of plain values, for printing. Services is not looked at; see [LoadOptions] for the rest.
func Model(ctx context.Context, o LoadOptions) (map[string]any, error) {
	r, err := newReading(ctx, o)
	if err != nil {
		return nil, err
	}
	r.chooseName()
	model, err := guard(func() (map[string]any, error) { return loader.LoadModelWithContext(ctx, r.details(), r.configure) })
	if err != nil {
		return nil, r.files.explain(err)
	}
	r.warnings()
	return model, nil
}

// guard makes an error of a panic in compose-go: some values that its schema lets through (a missing one under additional_contexts) are
// more than it can take.
func guard[T any](load func() (T, error)) (v T, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = &loaderPanic{reason}
		}
	}()
	return load()
}

// loaderPanic is a panic of compose-go.
type loaderPanic struct{ reason any }

func (e *loaderPanic) Error() string {
	return fmt.Sprintf("a value is missing or of the wrong kind (%v)", e.reason)
}

// reading is one load: the options with all defaults filled in, and the files' contents.
type reading struct {
	o             LoadOptions
	env           map[string]string
	files         *sources
	envFiles      []string
	projectDir    string
	nameDir       string // the folder that the project is named after
	name          string // the project's, unless the files name it; named: it is no suggestion only
	named         bool
	readsMore     bool // the files include or extend others
	compatibility bool
	unset         *unsetVariables
}

func newReading(ctx context.Context, o LoadOptions) (*reading, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(o.WorkingDir) {
		return nil, fmt.Errorf("load compose files: working directory %q is not absolute", o.WorkingDir)
	}
	if o.ProjectName != loader.NormalizeProjectName(o.ProjectName) {
		return nil, invalidNameError(o.ProjectName)
	}
	if o.Warn == nil {
		o.Warn = func(Warning) {}
	}
	registerRawEnvFiles()
	f, err := locate(o)
	if err != nil {
		return nil, err
	}
	r := &reading{o: o, env: f.env, envFiles: f.envFiles, projectDir: f.dir, nameDir: f.dir, unset: &unsetVariables{}}
	r.compatibility = o.Compatibility || utils.StringToBool(f.env[compatibilityVariable])
	if err := r.fetch(ctx, f.files); err != nil {
		return nil, err
	}
	r.files, err = readSources(f.files, o.Stdin)
	return r, err
}

func (r *reading) details() types.ConfigDetails {
	d := types.ConfigDetails{WorkingDir: r.projectDir, Environment: r.env}
	for _, f := range r.files.given {
		d.ConfigFiles = append(d.ConfigFiles, types.ConfigFile{Filename: f.name, Content: withoutVersion(f.content)})
	}
	return d
}

// withoutVersion blanks the obsolete version: at the start, which warnings tells of: compose-go would log it.
func withoutVersion(content []byte) []byte {
	if !bytes.Contains(content, []byte("version")) {
		return content
	}
	at := leadingVersion.Get().FindSubmatchIndex(content)
	if at == nil {
		return content
	}
	from, to := at[2], at[3]
	return slices.Concat(content[:from], bytes.Repeat([]byte(" "), to-from), content[to:])
}

// configure sets the loader's options.
func (r *reading) configure(l *loader.Options) {
	o := r.o
	l.SkipInterpolation = o.NoInterpolate
	l.SkipNormalization = o.NoNormalize
	l.SkipConsistencyCheck = o.NoConsistency
	l.SkipResolveEnvironment = true // finish does it, for the selected services only
	l.ResolvePaths = !o.NoPathResolution
	l.ConvertWindowsPaths = l.ResolvePaths && utils.StringToBool(r.env[windowsPathsVariable])
	l.Profiles = r.profiles()
	l.ResourceLoaders = o.resourceLoaders()
	l.Interpolate.Substitute = r.unset.substitute
	l.Interpolate.TypeCastMapping = r.casts(l.Interpolate.TypeCastMapping)
	l.SetProjectName(r.name, r.named)
}

// profiles are those to enable.
func (r *reading) profiles() []string {
	if len(r.o.Profiles) > 0 {
		return r.o.Profiles
	}
	var all []string
	for _, name := range strings.Split(r.env[consts.ComposeProfiles], ",") {
		all = append(all, strings.TrimSpace(name))
	}
	return all
}

// chooseName decides on the project's name, unless the files name the project themselves.
func (r *reading) chooseName() {
	switch {
	case r.o.ProjectName != "":
		r.name, r.named = r.o.ProjectName, true
	case r.env[consts.ComposeProjectName] != "":
		r.name, r.named = r.env[consts.ComposeProjectName], true
	case !r.files.nameProject():
		folder := filepath.Base(r.nameDir)
		if r.o.FolderName != nil {
			folder = r.o.FolderName(r.nameDir)
		} else if real, err := filepath.EvalSymlinks(r.nameDir); err == nil && filepath.Base(real) != folder {
			r.o.Warn(Warning{Text: fmt.Sprintf("the project is named %q after a symbolic link, not after the folder it leads to", folder)})
		}
		r.name = loader.NormalizeProjectName(folder)
		r.named = r.name != "" // which spares a second parse of all files in search of a name
	}
}

// finish selects the services and resolves what depends on the selection.
func (r *reading) finish(p *types.Project) (*types.Project, error) {
	if p.Name == "" {
		return nil, invalidNameError("")
	}
	p, err := selectServices(p, r.o.Services)
	if err != nil {
		return nil, err
	}
	r.label(p)
	if !r.o.AllResources {
		p = withNeededResources(p)
	}
	if r.o.NoEnvResolution {
		return p, nil
	}
	p, err = p.WithServicesEnvironmentResolved(true)
	if err != nil {
		return nil, r.files.explain(err)
	}
	return p, nil
}

func selectServices(p *types.Project, names []string) (*types.Project, error) {
	if len(names) == 0 {
		return p, nil
	}
	for _, name := range names {
		if _, ok := p.AllServices()[name]; !ok {
			return nil, &unknownServiceError{name: name, known: slices.Sorted(maps.Keys(p.AllServices()))}
		}
	}
	p, err := p.WithServicesEnabled(names...)
	if err != nil {
		return nil, err
	}
	return p.WithSelectedServices(names)
}

// withNeededResources returns the project without the networks, volumes, … that neither a service nor a pre_start hook uses.
func withNeededResources(p *types.Project) *types.Project {
	all := *p
	all.Services = maps.Clone(p.Services)
	for name, s := range p.Services {
		for i, hook := range s.PreStart {
			all.Services[fmt.Sprintf("%s/%d", name, i)] = types.ServiceConfig{ContainerSpec: hook.ContainerSpec}
		}
	}
	needed := all.WithoutUnnecessaryResources()
	q := *p
	q.Networks, q.Volumes, q.Secrets, q.Configs, q.Models = needed.Networks, needed.Volumes, needed.Secrets, needed.Configs, needed.Models
	return &q
}

// label puts the labels on each service and job by which docker compose finds its containers.
func (r *reading) label(p *types.Project) {
	for name, s := range p.Services {
		s.CustomLabels = r.labels(p, name)
		p.Services[name] = s
	}
	for name, j := range p.Jobs {
		j.CustomLabels = r.labels(p, name)
		p.Jobs[name] = j
	}
}

func (r *reading) labels(p *types.Project, service string) types.Labels {
	all := types.Labels{
		LabelProject:     p.Name,
		LabelService:     service,
		LabelVersion:     labelVersion,
		LabelWorkingDir:  p.WorkingDir,
		LabelConfigFiles: strings.Join(p.ComposeFiles, ","),
		LabelOneOff:      "False",
	}
	if len(r.envFiles) > 0 {
		all[LabelEnvFiles] = strings.Join(r.envFiles, ",")
	}
	return all
}

// unknownServiceError is a service that was asked for and is not in the files.
type unknownServiceError struct {
	name  string
	known []string
}

func (e *unknownServiceError) Error() string { return fmt.Sprintf("no such service: %s", e.name) }

// Hint lists the services there are.
func (e *unknownServiceError) Hint() string {
	if len(e.known) == 0 {
		return "the compose files define no services"
	}
	return "the services are: " + strings.Join(e.known, ", ")
}

// hintedError is an error with the next step.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Hint() string  { return e.hint }
func (e *hintedError) Unwrap() error { return e.error }

func invalidNameError(name string) error {
	if name == "" {
		return &hintedError{errors.New("the project has no name"), "name it with -p NAME, or with name: in the compose file"}
	}
	hint := "use only lower-case letters, digits, \"-\" and \"_\", starting with a letter or digit"
	if n := loader.NormalizeProjectName(name); n != "" {
		hint += fmt.Sprintf(": %s", n)
	}
	return &hintedError{fmt.Errorf("invalid project name %q", name), hint}
}
