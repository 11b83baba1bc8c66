// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// ContainerInput is what a container needs beside its service.
type ContainerInput struct {
	Number  int     // replica number from 1
	Name    string  // default: ContainerName(p, s, Number)
	ImageID string  // for LabelImage; empty when not known yet
	Image   Ref     // operation that makes the image, if any
	Inherit []Mount // volumes to keep from the container that this one replaces: see AnonymousVolumes
	Replace string  // for LabelReplace
	OneOff  *OneOff // `run`
	// Services names, by service, the container that stands for it in network_mode, ipc, pid (service:NAME) and volumes_from. One made
	// by an operation of the same plan is filled in by ContainerSpec.Resolve.
	Services map[string]Ref
	// Replicas names, by service, the containers that links point to. Default: those of its scale.
	Replicas map[string][]string
	// Environment holds defaults the service's own variables override: the proxies of the docker configuration.
	Environment map[string]string
}

// NewContainerSpec converts a service to what the engine needs to create one container of it, and the files to put into the
// container before it starts.
func NewContainerSpec(p *types.Project, s types.ServiceConfig, in ContainerInput) (ContainerSpec, []File, error) {
	if in.Name == "" {
		in.Name = ContainerName(p, s, in.Number)
	}
	hash, err := ServiceHash(p, s)
	if err != nil {
		return ContainerSpec{}, nil, err
	}
	labels := maps.Clone(map[string]string(s.Labels))
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, s.CustomLabels)
	labels[LabelConfigHash] = hash
	labels[LabelContainerNumber] = strconv.Itoa(in.Number)
	if in.ImageID != "" {
		labels[LabelImage] = in.ImageID
	}
	if in.Replace != "" {
		labels[LabelReplace] = in.Replace
	}
	env := make([]string, 0, len(s.Environment))
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		if v := s.Environment[k]; v != nil {
			env = append(env, k+"="+*v)
		}
	}
	return ContainerSpec{
		Name:     in.Name,
		Platform: s.Platform,
		Config:   &container.Config{Image: ImageName(p, s), Cmd: s.Command, Entrypoint: s.Entrypoint, Env: env, Labels: labels},
		Host:     &container.HostConfig{},
		Image:    in.Image,
	}, nil, nil
}

// Resolve fills in what only the plan's earlier operations know: the image's ID, and the containers that stand for other services.
// It returns a copy. Engines call it before they create the container.
func (c ContainerSpec) Resolve(made Results) (ContainerSpec, error) {
	return c, nil
}

// ContainerName is the name of a service's container: container_name, or <project>-<service>-<number>.
func ContainerName(p *types.Project, s types.ServiceConfig, number int) string {
	if s.ContainerName != "" {
		return s.ContainerName
	}
	return strings.Join([]string{p.Name, s.Name, strconv.Itoa(number)}, "-")
}

// ImageName is the image a service runs: image:, or the name its build gets, <project>-<service>.
func ImageName(p *types.Project, s types.ServiceConfig) string {
	if s.Image != "" {
		return s.Image
	}
	return p.Name + "-" + s.Name
}

// AnonymousVolumes lists the volumes of a container that its successor keeps: those without a name of their own that the service no
// longer mounts something else over.
func AnonymousVolumes(old Container, s types.ServiceConfig) []Mount { return nil }
