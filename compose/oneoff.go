// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
)

// OneOff is what `run` changes about a service for one container.
type OneOff struct {
	// Slug is the random part of the container's name: at least 12 hexadecimal digits.
	Slug string
	// Name replaces the name made from the slug.
	Name       string
	Command    []string
	Entrypoint []string // nil: the service's; empty: none
	Env        []string // NAME=VALUE, or NAME to take it from the project's environment
	Labels     []string // NAME=VALUE
	Volumes    []string // short syntax
	// VolumeDir is the folder that relative sources in Volumes are in; empty: the project's.
	VolumeDir  string
	Publish    []string // short syntax; not together with ServicePorts
	User       string
	WorkingDir string
	CapAdd     []string
	CapDrop    []string
	// Tty, Stdin: the container gets a terminal, keeps its standard input open.
	Tty, Stdin bool
	Detach     bool
	AutoRemove bool
	// UseAliases gives it the service's network aliases, ServicePorts the service's published ports.
	UseAliases, ServicePorts bool
}

// slugLength is how much of the slug is in the container's name.
const slugLength = 12

// Apply returns the service that the one-off container is made from.
func (o OneOff) Apply(p *types.Project, s types.ServiceConfig) (types.ServiceConfig, error) {
	s.Tty, s.StdinOpen = o.Tty, o.Stdin
	s.ContainerName = o.Name
	if s.ContainerName == "" {
		sep := separator(p)
		s.ContainerName = strings.Join([]string{p.Name, s.Name, "run", o.Slug[:min(slugLength, len(o.Slug))]}, sep)
	}
	o.process(p, &s)
	o.capabilities(&s)
	one := 1
	s.Scale, s.Restart = &one, ""
	if s.Deploy != nil {
		deploy := *s.Deploy
		deploy.RestartPolicy = nil
		s.Deploy = &deploy
	}
	s.CustomLabels = maps.Clone(s.CustomLabels)
	s.CustomLabels = s.CustomLabels.Add(LabelSlug, o.Slug).Add(LabelOneOff, "True")
	if err := o.label(&s); err != nil {
		return s, err
	}
	if err := o.publish(&s); err != nil {
		return s, err
	}
	return s, o.mount(p, &s)
}

// process applies what concerns the process in the container.
func (o OneOff) process(p *types.Project, s *types.ServiceConfig) {
	if o.Entrypoint != nil {
		s.Entrypoint, s.Command = o.Entrypoint, []string{}
	}
	if len(o.Command) > 0 {
		s.Command = o.Command
	}
	if o.User != "" {
		s.User = o.User
	}
	if o.WorkingDir != "" {
		s.WorkingDir = o.WorkingDir
	}
	env := types.NewMappingWithEquals(o.Env).Resolve(p.Environment.Resolve).RemoveEmpty()
	if len(env) > 0 {
		all := types.MappingWithEquals{}
		maps.Copy(all, s.Environment)
		maps.Copy(all, env)
		s.Environment = all
	}
}

// capabilities adds and drops; what is added is no longer dropped, and the other way round.
func (o OneOff) capabilities(s *types.ServiceConfig) {
	without := func(list, gone []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(c string) bool { return slices.Contains(gone, c) })
	}
	s.CapAdd = append(without(s.CapAdd, o.CapDrop), o.CapAdd...)
	s.CapDrop = append(without(s.CapDrop, o.CapAdd), o.CapDrop...)
}

func (o OneOff) label(s *types.ServiceConfig) error {
	if len(o.Labels) == 0 {
		return nil
	}
	labels := types.Labels{}
	maps.Copy(labels, s.Labels)
	for _, text := range o.Labels {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return fmt.Errorf("label %q is not in the form NAME=VALUE", text)
		}
		labels[name] = value
	}
	s.Labels = labels
	return nil
}

func (o OneOff) publish(s *types.ServiceConfig) error {
	if o.ServicePorts {
		if len(o.Publish) > 0 {
			return fmt.Errorf("ports to publish cannot be given together with the service's own")
		}
		return nil
	}
	s.Ports = []types.ServicePortConfig{}
	for _, text := range o.Publish {
		ports, err := types.ParsePortConfig(text)
		if err != nil {
			return fmt.Errorf("publish %q: %w", text, err)
		}
		s.Ports = append(s.Ports, ports...)
	}
	return nil
}

// mount adds the volumes; one at the same place as a volume of the service replaces it.
func (o OneOff) mount(p *types.Project, s *types.ServiceConfig) error {
	if len(o.Volumes) == 0 {
		return nil
	}
	dir := o.VolumeDir
	if dir == "" {
		dir = p.WorkingDir
	}
	s.Volumes = slices.Clone(s.Volumes)
	for _, text := range o.Volumes {
		v, err := format.ParseVolume(text)
		if err != nil {
			return fmt.Errorf("mount %q: %w", text, err)
		}
		if v.Type == types.VolumeTypeBind && !filepath.IsAbs(v.Source) && !strings.HasPrefix(v.Source, "/") {
			v.Source = filepath.Join(dir, v.Source)
		}
		s.Volumes = slices.DeleteFunc(s.Volumes, func(old types.ServiceVolumeConfig) bool { return old.Target == v.Target })
		s.Volumes = append(s.Volumes, v)
	}
	return nil
}
