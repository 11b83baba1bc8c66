// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Warning is something about the Compose files that the user should know but that stops nothing. File, Line, Service and Field are
// empty where they do not apply or are not known.
type Warning struct {
	File    string
	Line    int // from 1
	Service string
	Field   string // path within the service, or from the top when Service is empty
	Text    string
}

// String gives the warning as one line: file:line: service "web": field: text.
func (w Warning) String() string { return place(w.File, w.Line, w.Service, w.Field) + w.Text }

// FieldError is a field of a Compose file that is wrong or cannot be honoured.
type FieldError struct {
	File    string
	Line    int // from 1; 0: not known
	Service string
	Field   string // path within the service, or from the top when Service is empty
	Err     error
}

// Error names file, line, service and field before the cause.
func (e *FieldError) Error() string { return place(e.File, e.Line, e.Service, e.Field) + e.Err.Error() }

// Unwrap gives the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func place(file string, line int, service, field string) string {
	var b strings.Builder
	switch {
	case file != "" && line > 0:
		fmt.Fprintf(&b, "%s:%d: ", file, line)
	case file != "":
		fmt.Fprintf(&b, "%s: ", file)
	}
	if service != "" {
		fmt.Fprintf(&b, "service %q: ", service)
	}
	if field != "" {
		fmt.Fprintf(&b, "%s: ", field)
	}
	return b.String()
}

// findField is find for a field as errors and warnings name it: environment.DEBUG, ports[0].published.
func (s *sources) findField(service, field string) (file string, line int) {
	var path []string
	if service != "" {
		path = []string{"services", service}
	}
	field = strings.NewReplacer("[", ".", "]", "").Replace(field)
	return s.find(append(path, strings.Split(field, ".")...)...)
}

// Check returns an error for each thing in the project's services that is refused because leaving it out would make the service something
// else than what was asked for, with file and line. Plans that create containers begin with it.
func Check(p *types.Project) error {
	var all []error
	var files *sources
	for _, name := range p.ServiceNames() {
		err := refuse(p.Services[name])
		var field *FieldError
		if errors.As(err, &field) {
			if files == nil {
				files = sourcesOf(p)
			}
			field.File, field.Line = files.findField(field.Service, field.Field)
		}
		all = append(all, err)
	}
	return errors.Join(append(all, sameNames(p))...)
}

// sameNames returns an error if two services ask for containers of the same name.
func sameNames(p *types.Project) error {
	owner := map[string]string{}
	for _, name := range p.ServiceNames() {
		wanted := p.Services[name].ContainerName
		if other, taken := owner[wanted]; wanted != "" && taken {
			return located(p, &FieldError{Service: name, Field: "container_name", Err: fmt.Errorf("%q is taken by service %q", wanted, other)})
		}
		owner[wanted] = name
	}
	return nil
}

// refuse returns an error for the first field of the service that is refused.
func refuse(s types.ServiceConfig) error {
	for _, f := range []struct {
		field string
		set   bool
		why   string
	}{
		{"provider", s.Provider != nil, "a service of a provider has no containers here"},
		{"models", modelless(s.ContainerSpec), "its models have not been asked for"},
		{"use_api_socket", withheld(s.ContainerSpec), "the engine's socket is not known"},
		{"umask", s.Umask != nil, "the engine has no such setting; call umask in the command"},
	} {
		if f.set {
			return &FieldError{Service: s.Name, Field: f.field, Err: errors.New(f.why)}
		}
	}
	if s.Image == "" && s.Build == nil {
		return &FieldError{Service: s.Name, Err: errors.New("has neither image nor build")}
	}
	return nil
}

// Unsupported lists the fields of the project that cannot be honoured and that can be left out without harm, with file and line, ordered by
// service. It reads the project's files again if there is anything to report.
func Unsupported(p *types.Project) []Warning {
	var found []Warning
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		add := func(field, text string) {
			found = append(found, Warning{Service: s.Name, Field: field, Text: text})
		}
		for _, field := range clusterOnly(s) {
			add(field, "has no effect on a single engine")
		}
		unsupportedSpec(s, add)
		for i := range s.PreStart {
			hook := types.ServiceConfig{Name: s.Name, ContainerSpec: s.PreStart[i].ContainerSpec}
			unsupportedSpec(hook, func(field, text string) { add(fmt.Sprintf("pre_start[%d].%s", i, field), text) })
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Jobs)) {
		if t := p.Jobs[name].Triggers; t != nil && len(t.Schedule) > 0 {
			found = append(found, Warning{Field: "jobs." + name + ".triggers.schedule", Text: "nothing here keeps time: run it with dev run " + name + ", from cron for example"})
		}
	}
	found = append(found, unsupportedFiles(p)...)
	found = append(found, missingFiles(p)...)
	if len(found) > 0 {
		files := sourcesOf(p)
		for i, w := range found {
			found[i].File, found[i].Line = files.findField(w.Service, w.Field)
		}
	}
	return found
}

func unsupportedSpec(s types.ServiceConfig, add func(field, text string)) {
	unsupportedService(s, add)
	unsupportedVolumes(s, add)
	unsupportedNetworks(s, add)
}

func unsupportedService(s types.ServiceConfig, add func(field, text string)) {
	const windows = "has an effect on Windows engines only"
	if s.CPUCount != 0 {
		add("cpu_count", windows)
	}
	if s.CPUPercent != 0 {
		add("cpu_percent", windows)
	}
	if s.CredentialSpec != nil {
		add("credential_spec", windows)
	}
	if s.NetworkMode == "host" && len(s.Ports) > 0 {
		add("ports", "not published: with network_mode \"host\" all ports of the container are the host's already")
	}
}

// unsupportedVolumes reports options that belong to another type of mount.
func unsupportedVolumes(s types.ServiceConfig, add func(field, text string)) {
	for i, v := range s.Volumes {
		for option, set := range map[string]bool{
			types.VolumeTypeBind:   v.Bind != nil && v.Bind.SELinux+v.Bind.Propagation+v.Bind.Recursive != "",
			types.VolumeTypeVolume: v.Volume != nil && (v.Volume.NoCopy || v.Volume.Subpath != "" || len(v.Volume.Labels) > 0),
			types.VolumeTypeTmpfs:  v.Tmpfs != nil && (v.Tmpfs.Size != 0 || v.Tmpfs.Mode != 0),
			types.VolumeTypeImage:  v.Image != nil && v.Image.SubPath != "",
		} {
			if set && v.Type != option {
				add(indexed("volumes", i, option), fmt.Sprintf("has no effect on a mount of type %s", v.Type))
			}
		}
	}
}

func unsupportedNetworks(s types.ServiceConfig, add func(field, text string)) {
	for _, key := range slices.Sorted(maps.Keys(s.Networks)) {
		n := s.Networks[key]
		if n == nil || n.InterfaceName == "" {
			continue
		}
		if other, ok := n.DriverOpts[interfaceNameOption]; ok && other != n.InterfaceName {
			add("networks."+key+".interface_name", "wins over the driver option "+interfaceNameOption)
		}
	}
}

// unsupportedFiles reports what configs and secrets have for clusters only.
func unsupportedFiles(p *types.Project) []Warning {
	var found []Warning
	report := func(kind, name string, labels types.Labels) {
		if len(labels) > 0 {
			found = append(found, Warning{Field: kind + "." + name + ".labels", Text: "has no effect on a single engine"})
		}
	}
	for _, name := range p.SecretNames() {
		report("secrets", name, p.Secrets[name].Labels)
	}
	for _, name := range p.ConfigNames() {
		report("configs", name, p.Configs[name].Labels)
	}
	return found
}

// missingFiles reports configs and secrets whose files are not there: the engine would refuse to mount them.
func missingFiles(p *types.Project) []Warning {
	var found []Warning
	report := func(kind, name, file string) {
		if _, err := os.Stat(file); file != "" && errors.Is(err, fs.ErrNotExist) {
			found = append(found, Warning{Field: kind + "." + name + ".file", Text: fmt.Sprintf("%s does not exist", file)})
		}
	}
	for _, name := range p.SecretNames() {
		report("secrets", name, p.Secrets[name].File)
	}
	for _, name := range p.ConfigNames() {
		report("configs", name, p.Configs[name].File)
	}
	return found
}
