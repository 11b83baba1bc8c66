// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/seed71221737/dev/compose"
)

// manyNetworks is the API version from which a container is created with all its networks at once.
const manyNetworks = "1.44"

// createContainer creates a container, and connects it to further networks where the engine is too old to do so at once.
func (t *task) createContainer(ctx context.Context) (compose.Result, error) {
	spec, err := t.op.Container.Resolve(t.made)
	if err != nil {
		return compose.Result{}, err
	}
	platform, err := parsePlatform(spec.Platform)
	if err != nil {
		return compose.Result{}, err
	}
	cfg, err := t.labelImage(ctx, spec.Config)
	if err != nil {
		return compose.Result{}, err
	}
	nets, later := spec.Networks, map[string]*network.EndpointSettings(nil)
	if versions.LessThan(t.api.ClientVersion(), manyNetworks) {
		nets, later = splitNetworks(spec)
	}
	r, err := t.api.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: spec.Name, Platform: platform, Config: cfg, HostConfig: spec.Host, NetworkingConfig: nets,
	})
	if errdefs.IsConflict(err) {
		return t.existing(ctx, spec, err)
	}
	if err != nil {
		return compose.Result{}, t.createError(err)
	}
	for _, name := range slices.Sorted(maps.Keys(later)) {
		_, err := t.api.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: r.ID, EndpointConfig: later[name]})
		if err != nil {
			return compose.Result{ID: r.ID}, fmt.Errorf("connect to network %q: %w", name, t.explain(err))
		}
	}
	return compose.Result{ID: r.ID, Warnings: r.Warnings}, nil
}

// labelImage adds the label of the image that the container is made from, where the plan did not know it: whatever is there.
func (t *task) labelImage(ctx context.Context, cfg *container.Config) (*container.Config, error) {
	if cfg.Labels[compose.LabelImage] != "" {
		return cfg, nil
	}
	found, err := inspectImage(ctx, t.api, cfg.Image)
	if err != nil {
		return nil, t.createError(err)
	}
	out := *cfg
	out.Labels = maps.Clone(cfg.Labels)
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[compose.LabelImage] = found.ID
	return &out, nil
}

// createError adds what to do about an image that is not there.
func (t *task) createError(err error) error {
	err = t.explain(err)
	if gone(err) && says(err, "no such image") {
		return withHint(err, "dev pull %s", t.op.Service)
	}
	if says(err, "does not match the specified platform", "does not provide the specified platform") {
		return withHint(err, "dev pull %s", t.op.Service)
	}
	return err
}

// splitNetworks leaves the network that the container is created with, and those to connect it to afterwards.
func splitNetworks(spec compose.ContainerSpec) (*network.NetworkingConfig, map[string]*network.EndpointSettings) {
	if spec.Networks == nil || len(spec.Networks.EndpointsConfig) < 2 {
		return spec.Networks, nil
	}
	first := ""
	if spec.Host != nil {
		first = string(spec.Host.NetworkMode)
	}
	if _, ok := spec.Networks.EndpointsConfig[first]; !ok {
		first = slices.Min(slices.Collect(maps.Keys(spec.Networks.EndpointsConfig)))
	}
	later := maps.Clone(spec.Networks.EndpointsConfig)
	delete(later, first)
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		first: spec.Networks.EndpointsConfig[first],
	}}, later
}

// existing resolves a conflict about the container's name: the same replica with the same configuration, made by a run at the same time, is
// taken as the result; anything else is named.
func (t *task) existing(ctx context.Context, spec compose.ContainerSpec, conflict error) (compose.Result, error) {
	if spec.Name == "" {
		return compose.Result{}, conflict
	}
	var r client.ContainerInspectResult
	// The engine reserves a name before the container can be seen: a create sent by a run that was killed may still be under way.
	err := persist(ctx, func() (err error) {
		r, err = t.api.ContainerInspect(ctx, spec.Name, client.ContainerInspectOptions{})
		return err
	}, gone)
	if err != nil || r.Container.Config == nil {
		return compose.Result{}, conflict
	}
	have := r.Container.Config.Labels
	same := func(label string) bool { return have[label] == spec.Config.Labels[label] }
	if have[compose.LabelProject] != "" && same(compose.LabelProject) && same(compose.LabelService) && same(compose.LabelContainerNumber) &&
		same(compose.LabelConfigHash) && same(compose.LabelOneOff) {
		return compose.Result{ID: r.Container.ID}, nil
	}
	err = fmt.Errorf("the name %q is taken by %s", spec.Name, describeContainer(r.Container.Name, have))
	return compose.Result{}, withHint(err, "remove it or rename it: docker rm %s", spec.Name)
}

// describeContainer names a container, and the project and service it belongs to.
func describeContainer(name string, labels map[string]string) string {
	text := fmt.Sprintf("container %q", strings.TrimPrefix(name, "/"))
	if p := labels[compose.LabelProject]; p != "" {
		text += fmt.Sprintf(" of project %q", p)
	}
	return text
}

func (t *task) startContainer(ctx context.Context) error {
	err := t.start(ctx)
	if conflict := findPortConflict(err); conflict != nil {
		return t.portConflict(ctx, conflict, err)
	}
	return err
}

func (t *task) start(ctx context.Context) error {
	_, err := t.api.ContainerStart(ctx, t.id, client.ContainerStartOptions{})
	return err
}

func (t *task) stopContainer(ctx context.Context) error {
	_, err := t.api.ContainerStop(ctx, t.id, client.ContainerStopOptions{Timeout: seconds(t.op.Timeout)})
	if gone(err) {
		return nil
	}
	return err
}

func (t *task) restartContainer(ctx context.Context) error {
	_, err := t.api.ContainerRestart(ctx, t.id, client.ContainerRestartOptions{Timeout: seconds(t.op.Timeout)})
	if conflict := findPortConflict(err); conflict != nil {
		return t.portConflict(ctx, conflict, err)
	}
	return err
}

// seconds converts a timeout to the API's whole seconds, rounded up: 0.5 s must not become "at once".
func seconds(d *time.Duration) *int {
	if d == nil {
		return nil
	}
	n := int(math.Ceil(d.Seconds()))
	return &n
}

func (t *task) killContainer(ctx context.Context) error {
	_, err := t.api.ContainerKill(ctx, t.id, client.ContainerKillOptions{Signal: t.op.Signal})
	if gone(err) || errdefs.IsConflict(err) && says(err, "is not running") {
		return nil
	}
	return err
}

func (t *task) pauseContainer(ctx context.Context) error {
	_, err := t.api.ContainerPause(ctx, t.id, client.ContainerPauseOptions{})
	if says(err, "already paused") {
		return nil
	}
	return err
}

func (t *task) unpauseContainer(ctx context.Context) error {
	_, err := t.api.ContainerUnpause(ctx, t.id, client.ContainerUnpauseOptions{})
	if says(err, "is not paused") {
		return nil
	}
	return err
}

func (t *task) renameContainer(ctx context.Context) error {
	_, err := t.api.ContainerRename(ctx, t.id, client.ContainerRenameOptions{NewName: t.op.Name})
	if says(err, "same name as its current name") {
		return nil
	}
	if !errdefs.IsConflict(err) {
		return err
	}
	r, inspectErr := t.api.ContainerInspect(ctx, t.op.Name, client.ContainerInspectOptions{})
	switch {
	case inspectErr != nil || r.Container.Config == nil:
		return err
	case r.Container.ID == t.id:
		return nil
	}
	return fmt.Errorf("the name %q is taken by %s", t.op.Name, describeContainer(r.Container.Name, r.Container.Config.Labels))
}

// removeContainer removes a container; one that another removal is busy with is waited for.
func (t *task) removeContainer(ctx context.Context) error {
	_, err := t.api.ContainerRemove(ctx, t.id, client.ContainerRemoveOptions{RemoveVolumes: t.op.Volumes, Force: t.op.Force})
	switch {
	case gone(err):
		return nil
	case errdefs.IsConflict(err) && says(err, "already in progress"):
		return t.removed(ctx)
	}
	return err
}

// removed waits until a container that is being removed is gone.
func (t *task) removed(ctx context.Context) error {
	wait := t.api.ContainerWait(ctx, t.id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	select {
	case r := <-wait.Result:
		if r.Error != nil {
			return fmt.Errorf("wait for its removal: %s", r.Error.Message)
		}
		return nil
	case err := <-wait.Error:
		if gone(err) {
			return nil
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
