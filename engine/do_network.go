// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

func (t *task) createNetwork(ctx context.Context) (compose.Result, error) {
	s := t.op.Network
	r, err := t.api.NetworkCreate(ctx, s.Name, client.NetworkCreateOptions{
		Driver: s.Driver, Options: s.Options, IPAM: s.IPAM, Internal: s.Internal, Attachable: s.Attachable,
		EnableIPv4: s.EnableIPv4, EnableIPv6: s.EnableIPv6, Labels: s.Labels,
	})
	switch {
	case err == nil:
		return compose.Result{ID: r.ID, Warnings: r.Warning}, nil
	case errdefs.IsConflict(err) && says(err, "already exists"):
		return t.existingNetwork(ctx, err)
	}
	return compose.Result{}, networkError(t.explain(err))
}

// existingNetwork takes a network of the name as the result if it is the project's own.
func (t *task) existingNetwork(ctx context.Context, conflict error) (compose.Result, error) {
	s := t.op.Network
	have, err := t.api.NetworkInspect(ctx, s.Name, client.NetworkInspectOptions{})
	if err != nil {
		return compose.Result{}, conflict
	}
	same := func(label string) bool { return have.Network.Labels[label] == s.Labels[label] }
	if s.Labels[compose.LabelProject] != "" && same(compose.LabelProject) && same(compose.LabelNetwork) {
		return compose.Result{ID: have.Network.ID}, nil
	}
	owner := "which no project made"
	if p := have.Network.Labels[compose.LabelProject]; p != "" {
		owner = fmt.Sprintf("of project %q", p)
	}
	return compose.Result{}, withHint(fmt.Errorf("there is a network %q already, %s", s.Name, owner),
		"declare it as external: true to use it, or remove it: docker network rm %s", s.Name)
}

// networkError adds what to do about address conflicts.
func networkError(err error) error {
	switch {
	case says(err, "all predefined address pools have been fully subnetted", "could not find an available, non-overlapping"):
		return withHint(err, "remove unused networks: docker network prune; or give the engine more addresses: engine.address-pools in ~/.dev/config.yaml")
	case says(err, "overlaps with other one on this address space", "pool overlaps"):
		return withHint(err, "choose another subnet, or find the network that has it: docker network inspect $(docker network ls -q)")
	}
	return err
}

func (t *task) createVolume(ctx context.Context) (compose.Result, error) {
	r, err := t.api.VolumeCreate(ctx, client.VolumeCreateOptions{
		Name: t.op.Volume.Name, Driver: t.op.Volume.Driver, DriverOpts: t.op.Volume.DriverOpts,
		Labels: t.op.Volume.Labels, ClusterVolumeSpec: t.op.Volume.ClusterVolumeSpec,
	})
	if err != nil {
		return compose.Result{}, err
	}
	return compose.Result{ID: r.Volume.Name}, nil
}

// removeNetwork removes a network. The endpoints of containers that were just removed may take a moment to vanish.
func (t *task) removeNetwork(ctx context.Context) error {
	return t.removeUnused(ctx, "has active endpoints", client.ContainerListOptions{Filters: client.Filters{}.Add("network", t.id)},
		func() error {
			_, err := t.api.NetworkRemove(ctx, t.id, client.NetworkRemoveOptions{})
			return err
		})
}

// removeVolume removes a volume. A container that was just removed may hold it for a moment.
func (t *task) removeVolume(ctx context.Context) error {
	return t.removeUnused(ctx, "volume is in use", client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("volume", t.id)},
		func() error {
			_, err := t.api.VolumeRemove(ctx, t.id, client.VolumeRemoveOptions{})
			if says(err, "volume is in use") && t.endVolumeAccess(ctx, t.api, t.id) {
				_, err = t.api.VolumeRemove(ctx, t.id, client.VolumeRemoveOptions{})
			}
			return err
		})
}

// removeUnused removes something that containers use. While the engine says that it is in use and no container does, as those are just
// vanishing, it tries again; containers that do use it are named in the error.
func (t *task) removeUnused(ctx context.Context, inUse string, users client.ContainerListOptions, remove func() error) error {
	var names []string
	err := persist(ctx, remove, func(err error) bool {
		if !says(err, inUse) {
			return false
		}
		names = t.describeContainers(ctx, users)
		return len(names) == 0
	})
	switch {
	case gone(err):
		return nil
	case err != nil && len(names) > 0:
		return withHint(fmt.Errorf("still used by %s", strings.Join(names, ", ")), "stop and remove what uses it, then try again")
	}
	return err
}

// describeContainers names the containers of a list but for those that are being removed.
func (t *task) describeContainers(ctx context.Context, o client.ContainerListOptions) []string {
	list, err := t.api.ContainerList(ctx, o)
	if err != nil {
		return nil
	}
	var out []string
	for i := range list.Items {
		if c := newContainer(&list.Items[i]); c.State != compose.StateRemoving {
			out = append(out, describeContainer(c.Name, c.Labels))
		}
	}
	slices.Sort(out)
	return out
}
