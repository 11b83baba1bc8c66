// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/compose-spec/compose-go/v2/utils"
	"github.com/moby/moby/api/types/container"
)

// ContainerInput is what a container needs beside its service.
type ContainerInput struct {
	Number  int     // replica number from 1; not used for a one-off
	Name    string  // default: the service's ContainerName; it is the temporary one while a container is being replaced
	ImageID string  // for LabelImage; empty when not known yet
	Image   Ref     // operation that makes the image, if any
	Inherit []Mount // volumes to keep from the container that this one replaces: see AnonymousVolumes
	Replace string  // for LabelReplace
	OneOff  *OneOff // `run`
	// Services names, by service, the container that stands for it in network_mode, ipc, pid (service:NAME) and volumes_from. One made
	// by an operation of the same plan is filled in by ContainerSpec.Resolve. docker compose takes the first by name.
	Services map[string]Ref
	// Replicas names, by service, the containers that links point to. Default: those of its scale.
	Replicas map[string][]string
	// Environment holds defaults that the service's own variables override: the proxies of the docker configuration.
	Environment map[string]string
}

// conversion is the making of one container.
type conversion struct {
	p  *types.Project
	s  types.ServiceConfig
	in ContainerInput
}

// NewContainerSpec converts a service to what the engine needs to create one container of it, and the files to put into the
// container before it starts. It reads the files that the service takes in by content (a seccomp profile, a secret with a mode). A
// field that cannot be honoured is a *[FieldError].
func NewContainerSpec(p *types.Project, s types.ServiceConfig, in ContainerInput) (ContainerSpec, []File, error) {
	spec, files, err := newContainerSpec(p, s, in)
	if err != nil {
		return ContainerSpec{}, nil, located(p, err)
	}
	return spec, files, nil
}

func newContainerSpec(p *types.Project, s types.ServiceConfig, in ContainerInput) (ContainerSpec, []File, error) {
	if err := refuse(s); err != nil {
		return ContainerSpec{}, nil, err
	}
	if in.OneOff != nil {
		var err error
		if s, err = in.OneOff.Apply(p, s); err != nil {
			return ContainerSpec{}, nil, err
		}
		in.Number = 0
	}
	c := conversion{p: p, s: s, in: in}
	config, err := c.config()
	if err != nil {
		return ContainerSpec{}, nil, err
	}
	host, err := c.host()
	if err != nil {
		return ContainerSpec{}, nil, err
	}
	if err := c.namespaces(config, host); err != nil {
		return ContainerSpec{}, nil, err
	}
	networks, err := c.networks(host)
	if err != nil {
		return ContainerSpec{}, nil, err
	}
	files, err := c.files()
	if err != nil {
		return ContainerSpec{}, nil, err
	}
	spec := ContainerSpec{
		Name:     in.Name,
		Platform: Platform(p, s),
		Config:   config,
		Host:     host,
		Networks: networks,
		Image:    in.Image,
	}
	if spec.Name == "" {
		spec.Name = ContainerName(p, s, in.Number)
	}
	spec.later = c.later()
	return spec, files, nil
}

// config converts what belongs to the image's side of a container: command, environment, labels, ports, health check.
func (c conversion) config() (*container.Config, error) {
	s := c.s
	labels, err := c.labels()
	if err != nil {
		return nil, err
	}
	health, err := c.health()
	if err != nil {
		return nil, err
	}
	exposed, err := c.exposed()
	if err != nil {
		return nil, err
	}
	attachStdin := c.in.OneOff != nil && c.in.OneOff.Stdin
	return &container.Config{
		Hostname:        s.Hostname,
		Domainname:      s.DomainName,
		User:            s.User,
		AttachStdin:     attachStdin,
		AttachStdout:    true,
		AttachStderr:    true,
		ExposedPorts:    exposed,
		Tty:             s.Tty,
		OpenStdin:       s.StdinOpen,
		StdinOnce:       attachStdin && s.StdinOpen,
		Env:             environment(c.in.Environment, s.Environment),
		Cmd:             s.Command,
		Healthcheck:     health,
		Image:           ImageName(c.p, s),
		WorkingDir:      s.WorkingDir,
		Entrypoint:      s.Entrypoint,
		NetworkDisabled: s.NetworkMode == "disabled",
		Labels:          labels,
		StopSignal:      s.StopSignal,
		StopTimeout:     seconds(s.StopGracePeriod),
	}, nil
}

// labels are the service's own and those by which both tools find a container again.
func (c conversion) labels() (map[string]string, error) {
	hash, err := ServiceHash(c.p, WithContainers(c.s, c.in.Services))
	if err != nil {
		return nil, err
	}
	stored, err := EncodeServiceConfig(c.s)
	if err != nil {
		return nil, err
	}
	files, err := filesLabel(c)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	maps.Copy(labels, c.s.Labels)
	maps.Copy(labels, c.s.CustomLabels)
	labels[LabelConfigHash] = hash
	labels[LabelServiceConfig] = stored
	labels[LabelDependsOn] = dependsOnLabel(c.s.DependsOn)
	for label, value := range map[string]string{LabelImage: c.in.ImageID, LabelReplace: c.in.Replace, LabelFiles: files} {
		if value != "" {
			labels[label] = value
		}
	}
	if c.in.Number > 0 {
		labels[LabelContainerNumber] = strconv.Itoa(c.in.Number)
	}
	return labels, nil
}

// dependsOnLabel lists the dependencies in docker compose's form, by which `down` and `restart` order containers without a file.
func dependsOnLabel(deps types.DependsOnConfig) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(deps)) {
		list = append(list, fmt.Sprintf("%s:%s:%t", name, deps[name].Condition, deps[name].Restart))
	}
	return strings.Join(list, ",")
}

// environment merges the service's variables over the defaults. A variable without a value is listed by its bare name, which makes the
// engine leave out the image's.
func environment(defaults map[string]string, own types.MappingWithEquals) []string {
	vars := types.MappingWithEquals{}
	for k, v := range defaults {
		vars[k] = &v
	}
	maps.Copy(vars, own)
	list := make([]string, 0, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if v := vars[name]; v != nil {
			name += "=" + *v
		}
		list = append(list, name)
	}
	return list
}

// seconds rounds up: a grace period of half a second is not none.
func seconds(d *types.Duration) *int {
	if d == nil {
		return nil
	}
	n := int((time.Duration(*d) + time.Second - 1) / time.Second)
	return &n
}

// host converts what belongs to the machine's side of a container.
func (c conversion) host() (*container.HostConfig, error) {
	s := c.s
	resources, err := c.resources()
	if err != nil {
		return nil, err
	}
	restart, err := c.restart()
	if err != nil {
		return nil, err
	}
	bindings, err := c.bindings()
	if err != nil {
		return nil, err
	}
	host := &container.HostConfig{
		Annotations:    s.Annotations,
		AutoRemove:     c.in.OneOff != nil && c.in.OneOff.AutoRemove,
		GroupAdd:       s.GroupAdd,
		Init:           s.Init,
		OomScoreAdj:    int(s.OomScoreAdj),
		PortBindings:   bindings,
		ReadonlyRootfs: s.ReadOnly,
		Resources:      resources,
		RestartPolicy:  restart,
		Runtime:        s.Runtime,
		ShmSize:        int64(s.ShmSize),
		StorageOpt:     s.StorageOpt,
		Sysctls:        s.Sysctls,
		VolumeDriver:   s.VolumeDriver,
	}
	if s.Logging != nil {
		host.LogConfig = container.LogConfig{Type: s.Logging.Driver, Config: s.Logging.Options}
	}
	if err := c.security(host); err != nil {
		return nil, err
	}
	return host, c.mounts(host)
}

// restart converts restart and deploy.restart_policy, which wins.
func (c conversion) restart() (container.RestartPolicy, error) {
	var policy container.RestartPolicy
	field := "restart"
	name, retries, _ := strings.Cut(c.s.Restart, ":")
	if retries != "" {
		n, err := strconv.Atoi(retries)
		if err != nil {
			return policy, c.failf(field, "%q is not a number of attempts", retries)
		}
		policy.MaximumRetryCount = n
	}
	policy.Name = restartMode(name)
	if c.s.Deploy != nil && c.s.Deploy.RestartPolicy != nil {
		field = "deploy.restart_policy"
		policy = container.RestartPolicy{Name: restartMode(c.s.Deploy.RestartPolicy.Condition)}
		if n := c.s.Deploy.RestartPolicy.MaxAttempts; n != nil {
			policy.MaximumRetryCount = int(*n)
		}
		if policy.Name != container.RestartPolicyOnFailure {
			policy.MaximumRetryCount = 0 // it means something else in a cluster; here the engine refuses it
		}
	}
	if err := container.ValidateRestartPolicy(policy); err != nil {
		return policy, c.fail(field, err)
	}
	return policy, nil
}

// restartMode maps a condition of deploy.restart_policy to an engine's policy; the engine's own names stay.
func restartMode(name string) container.RestartPolicyMode {
	switch name {
	case "none":
		return container.RestartPolicyDisabled
	case "any":
		return container.RestartPolicyAlways
	}
	return container.RestartPolicyMode(name)
}

// ContainerName is the name of a service's container: container_name, or <project>-<service>-<number>.
func ContainerName(p *types.Project, s types.ServiceConfig, number int) string {
	if s.ContainerName != "" {
		return s.ContainerName
	}
	return strings.Join([]string{p.Name, s.Name, strconv.Itoa(number)}, separator(p))
}

// ImageName is the image a service runs: image:, or the name its build gets, <project>-<service>.
func ImageName(p *types.Project, s types.ServiceConfig) string {
	if s.Image != "" {
		return s.Image
	}
	return p.Name + separator(p) + s.Name
}

// separator joins the parts of names; compatibility mode has Compose v1's.
func separator(p *types.Project) string {
	if utils.StringToBool(p.Environment[compatibilityVariable]) {
		return "_"
	}
	return "-"
}

// Platform is the platform a service runs on (os/arch[/variant]), empty for the engine's own.
func Platform(p *types.Project, s types.ServiceConfig) string {
	if s.Platform != "" {
		return s.Platform
	}
	return p.Environment[defaultPlatformEnvName]
}

func (c conversion) fail(field string, err error) error {
	return &FieldError{Service: c.s.Name, Field: field, Err: err}
}

func (c conversion) failf(field, format string, args ...any) error {
	return c.fail(field, fmt.Errorf(format, args...))
}

// located adds file and line to the errors about fields.
func located(p *types.Project, err error) error {
	var field *FieldError
	if !errors.As(err, &field) || field.File != "" {
		return err
	}
	field.File, field.Line = sourcesOf(p).findField(field.Service, field.Field)
	return err
}
