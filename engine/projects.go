// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
)

// Project is one that has containers on the engine.
type Project struct {
	Name string
	// ConfigFiles are those that its containers were made from.
	ConfigFiles []string
	// States counts its containers by their states.
	States map[compose.State]int
}

// Projects lists the projects of the engine by name, with one call. One-off containers count as well.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	var list client.ContainerListResult
	err := c.optimistic(ctx, func(ctx context.Context, api *client.Client) (err error) {
		list, err = api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", compose.LabelProject)})
		return err
	})
	if err != nil {
		return nil, doing("list projects", err)
	}
	found := map[string]*Project{}
	for _, s := range list.Items {
		name := s.Labels[compose.LabelProject]
		p := found[name]
		if p == nil {
			p = &Project{Name: name, States: map[compose.State]int{}}
			found[name] = p
		}
		p.States[compose.State(s.State)]++
		for _, file := range strings.Split(s.Labels[compose.LabelConfigFiles], ",") {
			if file != "" && !slices.Contains(p.ConfigFiles, file) {
				p.ConfigFiles = append(p.ConfigFiles, file)
			}
		}
	}
	var out []Project
	for _, name := range slices.Sorted(maps.Keys(found)) {
		slices.Sort(found[name].ConfigFiles)
		out = append(out, *found[name])
	}
	return out, nil
}

// ContainerImage is the image of a container.
type ContainerImage struct {
	Container       compose.Container
	ID              string
	Repository, Tag string // empty if the image has no name any more
	Platform        string
	Size            int64 // bytes
	// Created is when the image was made; Tagged when it was last pulled, built or tagged here.
	Created, Tagged time.Time
}

// Images tells what the containers' images are, in the order of the containers. Images that are gone have an ID only.
func (c *Client) Images(ctx context.Context, containers []compose.Container) ([]ContainerImage, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	images := map[string]*client.ImageInspectResult{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, ctr := range containers {
		if images[ctr.ImageID] != nil {
			continue
		}
		into := &client.ImageInspectResult{}
		images[ctr.ImageID] = into
		g.Go(func() error {
			r, err := api.ImageInspect(gctx, ctr.ImageID)
			if err == nil {
				*into = r
			} else if !gone(err) {
				return doing(fmt.Sprintf("inspect image %q", ctr.ImageID), c.explain(err))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([]ContainerImage, len(containers))
	for i, ctr := range containers {
		out[i] = newContainerImage(ctr, images[ctr.ImageID])
	}
	return out, nil
}

func newContainerImage(ctr compose.Container, r *client.ImageInspectResult) ContainerImage {
	out := ContainerImage{
		Container: ctr, ID: ctr.ImageID, Size: r.Size, Created: parseTime(r.Created), Tagged: r.Metadata.LastTagTime,
		Platform: formatPlatform(ocispec.Platform{OS: r.Os, Architecture: r.Architecture, Variant: r.Variant}),
	}
	names := append([]string{ctr.Image}, r.RepoTags...)
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil || strings.HasPrefix(name, "sha256:") {
			continue
		}
		out.Repository = reference.FamiliarName(named)
		if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
			out.Tag = tagged.Tag()
		}
		break
	}
	return out
}

// Published finds where a container's port is published on the host: "0.0.0.0:8080". The first in the order of addresses counts.
func Published(ctr compose.Container, port uint16, protocol string) (string, bool) {
	for _, p := range ctr.Ports {
		if p.ContainerPort == port && p.Protocol == cmp.Or(protocol, "tcp") && p.HostPort != 0 {
			return net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort))), true
		}
	}
	return "", false
}

// Inspect tells all about one container, with its last lines of output.
func (c *Client) Inspect(ctx context.Context, containerID string, lines int) (compose.ContainerDetails, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return compose.ContainerDetails{}, err
	}
	r, err := api.ContainerInspect(ctx, containerID, client.ContainerInspectOptions{})
	if err != nil {
		return compose.ContainerDetails{}, c.explain(err)
	}
	d := newDetails(&r.Container)
	d.Log = c.tail(ctx, containerID, lines)
	return d, nil
}

// Version is what an engine says of itself.
type Version struct {
	Engine, API, MinAPI string
	OS, Arch            string
	// Platform is the product's name.
	Platform string
}

// Version asks the engine for its version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var r client.ServerVersionResult
	err := c.optimistic(ctx, func(ctx context.Context, api *client.Client) (err error) {
		r, err = api.ServerVersion(ctx, client.ServerVersionOptions{})
		return err
	})
	if err != nil {
		return Version{}, err
	}
	return Version{Engine: r.Version, API: r.APIVersion, MinAPI: r.MinAPIVersion, OS: r.Os, Arch: r.Arch, Platform: r.Platform.Name}, nil
}

// Info asks the engine for its state and settings.
func (c *Client) Info(ctx context.Context) (system.Info, error) {
	var r client.SystemInfoResult
	err := c.optimistic(ctx, func(ctx context.Context, api *client.Client) (err error) {
		r, err = api.Info(ctx, client.InfoOptions{})
		return err
	})
	return r.Info, err
}
