// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// accessAge is how old a container for reading a volume is before its process is taken to be dead.
const accessAge = time.Hour

// Leftover is something on the engine that nothing uses any more.
type Leftover struct {
	Kind, ID, Name string
	Why            string
}

// String names it: "network shop_default".
func (l Leftover) String() string { return l.Kind + " " + l.Name }

// Leftovers finds networks of projects that have no containers, and containers of our own making whose process was killed.
func (c *Client) Leftovers(ctx context.Context) ([]Leftover, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, doing("list containers", c.explain(err))
	}
	var found []Leftover
	projects, attached := map[string]bool{}, map[string]bool{}
	for i := range containers.Items {
		s := &containers.Items[i]
		projects[s.Labels[compose.LabelProject]] = true
		if s.Labels[LabelVolumeAccess] != "" && c.now().Sub(time.Unix(s.Created, 0)) > accessAge {
			found = append(found, Leftover{Kind: "container", ID: s.ID, Name: containerName(s.Names), Why: "a snapshot was killed while it read or wrote volume " + s.Labels[LabelVolumeAccess]})
		}
		if s.NetworkSettings != nil {
			for name := range s.NetworkSettings.Networks {
				attached[name] = true
			}
		}
	}
	networks, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("label", compose.LabelProject)})
	if err != nil {
		return nil, doing("list networks", c.explain(err))
	}
	for _, n := range networks.Items {
		if project := n.Labels[compose.LabelProject]; project != "" && !projects[project] && !attached[n.Name] {
			found = append(found, Leftover{Kind: "network", ID: n.ID, Name: n.Name, Why: fmt.Sprintf("project %s has no containers any more", project)})
		}
	}
	return found, nil
}

// RemoveLeftover removes what [Client.Leftovers] found.
func (c *Client) RemoveLeftover(ctx context.Context, l Leftover) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	if l.Kind == "network" {
		_, err = api.NetworkRemove(ctx, l.ID, client.NetworkRemoveOptions{})
	} else {
		_, err = api.ContainerRemove(ctx, l.ID, client.ContainerRemoveOptions{Force: true})
	}
	if err != nil && !gone(err) {
		return doing("remove "+l.String(), c.explain(err))
	}
	return nil
}
