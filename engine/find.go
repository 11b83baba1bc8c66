// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// Find looks containers of whatever origin up by name or ID, with the configuration of their images.
func (c *Client) Find(ctx context.Context, containers ...string) ([]compose.Found, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	var found []compose.Found
	for _, name := range containers {
		r, err := api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		if gone(err) {
			return nil, withHint(fmt.Errorf("no such container: %q", name), "dev ls -a lists projects, docker ps -a all containers")
		}
		if err != nil {
			return nil, c.explain(err)
		}
		f := compose.Found{Container: r.Container}
		image, there, err := c.InspectImage(ctx, r.Container.Image)
		if err != nil {
			return nil, err
		}
		if there && image.Config != nil {
			i := image.Config
			f.Image = &container.Config{
				Env: i.Env, Entrypoint: i.Entrypoint, Cmd: i.Cmd, Labels: i.Labels, User: i.User, WorkingDir: i.WorkingDir, StopSignal: i.StopSignal,
				Healthcheck: i.Healthcheck,
			}
		}
		found = append(found, f)
	}
	return found, nil
}

// Labels returns the labels of all networks and volumes by their names.
func (c *Client) Labels(ctx context.Context) (networks, volumes map[string]map[string]string, err error) {
	networks, volumes = map[string]map[string]string{}, map[string]map[string]string{}
	err = c.optimistic(ctx, func(ctx context.Context, api *client.Client) error {
		ns, err := api.NetworkList(ctx, client.NetworkListOptions{})
		if err != nil {
			return err
		}
		for i := range ns.Items {
			networks[ns.Items[i].Name] = ns.Items[i].Labels
		}
		vs, err := api.VolumeList(ctx, client.VolumeListOptions{})
		for i := range vs.Items {
			volumes[vs.Items[i].Name] = vs.Items[i].Labels
		}
		return err
	})
	return networks, volumes, err
}
