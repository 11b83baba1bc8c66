// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// Container finds one container by its ID, in any state.
func (c *Client) Container(ctx context.Context, id string) (compose.Container, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return compose.Container{}, err
	}
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("id", id)})
	if err != nil {
		return compose.Container{}, doing(fmt.Sprintf("find container %q", id), c.explain(err))
	}
	for i := range list.Items {
		if list.Items[i].ID == id {
			return newContainer(&list.Items[i]), nil
		}
	}
	return compose.Container{}, fmt.Errorf("container %q: %w", id, errdefs.ErrNotFound)
}
