// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
)

// observeTimeout bounds an observation: an engine that lists nothing for so long hangs.
const observeTimeout = 2 * time.Minute

// Observe implements [compose.Engine]. It makes one list call for each of containers, networks, volumes and images that q asks for, all at
// once; further calls only for images that q names by a short ID, or whose age it asks for. Images of which q needs only the IDs are looked for
// once the containers are known, and only if these do not tell.
func (c *Client) Observe(ctx context.Context, q compose.Query) (compose.Snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, observeTimeout, fmt.Errorf("engine %q did not answer for %s", c.host, observeTimeout))
	defer cancel()
	var snap compose.Snapshot
	err := c.optimistic(ctx, func(ctx context.Context, api *client.Client) error {
		snap = compose.Snapshot{}
		return c.observe(ctx, api, q, &snap)
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() == context.DeadlineExceeded {
			err = cause
		}
		return compose.Snapshot{}, doing(fmt.Sprintf("observe project %q", q.Project), err)
	}
	snap.Now = c.now()
	return snap, nil
}

func (c *Client) observe(ctx context.Context, api *client.Client, q compose.Query, snap *compose.Snapshot) error {
	g, ctx := errgroup.WithContext(ctx)
	// One list of images costs the engine more than one of containers, and hardly more for several: it is left out or asked for whole.
	after := q.Project != "" && !slices.ContainsFunc(q.Images, func(ref string) bool { return !slices.Contains(q.IDOnly, ref) })
	if q.Project != "" {
		g.Go(func() (err error) {
			if snap.Containers, err = listContainers(ctx, api, q.Project); err != nil || !after {
				return err
			}
			snap.Images, err = c.imagesBeside(ctx, api, q.Images, snap.Containers)
			return err
		})
	}
	if !q.SkipNetworks || len(q.Networks) > 0 {
		g.Go(func() (err error) {
			snap.Networks, err = listNetworks(ctx, api, q)
			return err
		})
	}
	if !q.SkipVolumes || len(q.Volumes) > 0 {
		g.Go(func() (err error) {
			snap.Volumes, err = listVolumes(ctx, api, q)
			return err
		})
	}
	if len(q.Images) > 0 && !after {
		g.Go(func() (err error) {
			snap.Images, err = listImages(ctx, api, q.Images)
			if err == nil {
				err = addTagTimes(ctx, api, q.Tagged, snap.Images)
			}
			return err
		})
	}
	return g.Wait()
}

func projectFilter(project string) client.Filters {
	return client.Filters{}.Add("label", compose.LabelProject+"="+project)
}

func listContainers(ctx context.Context, api *client.Client, project string) ([]compose.Container, error) {
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(project)})
	if err != nil {
		return nil, err
	}
	out := make([]compose.Container, len(list.Items))
	for i := range list.Items {
		out[i] = newContainer(&list.Items[i])
	}
	slices.SortFunc(out, func(a, b compose.Container) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// newContainer converts a listed container.
func newContainer(s *container.Summary) compose.Container {
	c := compose.Container{
		ID: s.ID, Name: containerName(s.Names), Labels: s.Labels,
		Image: s.Image, ImageID: s.ImageID,
		State: compose.State(s.State), Health: parseHealth(s.Status), Status: s.Status,
		Command: s.Command, Created: time.Unix(s.Created, 0),
		Networks: map[string]string{},
	}
	if c.State == compose.StateExited || c.State == compose.StateRestarting {
		c.ExitCode = parseExitCode(s.Status)
	}
	if s.Health != nil {
		c.Health = newHealth(s.Health.Status)
	}
	if s.NetworkSettings != nil {
		for name, endpoint := range s.NetworkSettings.Networks {
			c.Networks[name] = ""
			if endpoint != nil {
				c.Networks[name] = endpoint.NetworkID
			}
		}
	}
	for _, m := range s.Mounts {
		c.Mounts = append(c.Mounts, compose.Mount{Type: string(m.Type), Name: m.Name, Source: m.Source, Destination: m.Destination})
	}
	for _, p := range s.Ports {
		c.Ports = append(c.Ports, newPort(p))
	}
	slices.SortFunc(c.Ports, comparePorts)
	return c
}

// containerName picks a container's own name: legacy links add further ones, "/other/alias".
func containerName(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

// newHealth converts a health; the engine says "none" where there is no health check.
func newHealth(h container.HealthStatus) compose.Health {
	if h == container.NoHealthcheck {
		return compose.HealthNone
	}
	return compose.Health(h)
}

func newPort(p container.PortSummary) compose.Port {
	port := compose.Port{HostPort: p.PublicPort, ContainerPort: p.PrivatePort, Protocol: p.Type}
	if p.IP.IsValid() {
		port.HostIP = p.IP.String()
	}
	return port
}

func comparePorts(a, b compose.Port) int {
	return cmp.Or(cmp.Compare(a.ContainerPort, b.ContainerPort), cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.HostIP, b.HostIP))
}

// listNetworks lists the project's networks and the named ones. Filters of a name and of a label exclude each other, so that names need
// the whole list, which is short.
func listNetworks(ctx context.Context, api *client.Client, q compose.Query) (map[string]compose.Network, error) {
	var o client.NetworkListOptions
	if len(q.Networks) == 0 {
		o.Filters = projectFilter(q.Project)
	}
	list, err := api.NetworkList(ctx, o)
	if err != nil {
		return nil, err
	}
	return pickNetworks(list.Items, q), nil
}

// pickNetworks picks the networks that q asks for. Of several with one name the project's own is preferred.
func pickNetworks(list []network.Summary, q compose.Query) map[string]compose.Network {
	out := map[string]compose.Network{}
	for _, n := range list {
		own := n.Labels[compose.LabelProject] == q.Project && q.Project != ""
		if !(own && !q.SkipNetworks) && !slices.Contains(q.Networks, n.Name) {
			continue
		}
		found := compose.Network{ID: n.ID, Name: n.Name, Driver: n.Driver, Labels: n.Labels}
		if have, ok := out[n.Name]; ok {
			if !own || have.Labels[compose.LabelProject] == q.Project {
				found = have
			}
			found.Duplicates = have.Duplicates + 1
		}
		out[n.Name] = found
	}
	return out
}

// listVolumes lists the project's volumes and the named ones.
func listVolumes(ctx context.Context, api *client.Client, q compose.Query) (map[string]compose.Volume, error) {
	var o client.VolumeListOptions
	if len(q.Volumes) == 0 {
		o.Filters = projectFilter(q.Project)
	}
	list, err := api.VolumeList(ctx, o)
	if err != nil {
		return nil, err
	}
	return pickVolumes(list.Items, q), nil
}

func pickVolumes(list []volume.Volume, q compose.Query) map[string]compose.Volume {
	out := map[string]compose.Volume{}
	for _, v := range list {
		own := v.Labels[compose.LabelProject] == q.Project && q.Project != ""
		if own && !q.SkipVolumes || slices.Contains(q.Volumes, v.Name) {
			out[v.Name] = compose.Volume{Name: v.Name, Driver: v.Driver, Labels: v.Labels}
		}
	}
	return out
}
