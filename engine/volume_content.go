// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// The content of a volume is reached through a container that mounts it and never starts: the engine reads and writes archives of what is in it.
// It is made of an image without any content, so that nothing has to be pulled and no program of an image runs.
const (
	// LabelVolumeAccess marks such containers. One that is left over, by a crash, may be removed.
	LabelVolumeAccess = "dev.volume-access"

	volumeAccessImage = "dev-volume-access:1"
	// volumeFolder is the name of the volume in its archives: its own owner and mode are those of this folder.
	volumeFolder  = "volume"
	removeTimeout = 30 * time.Second
)

// ReadVolume gives the content of a volume as a tar archive of one folder, "volume": with owners, modes, times, symbolic and hard links, capabilities and devices; sockets are left out, and files
// with holes are written in full. It is for the caller to see that nobody writes to the volume meanwhile.
func (c *Client) ReadVolume(ctx context.Context, name string, read func(archive io.Reader) error) error {
	return c.withVolume(ctx, name, true, func(ctx context.Context, api *client.Client, id string) error {
		r, err := api.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/" + volumeFolder})
		if err != nil {
			return c.explain(err)
		}
		defer r.Content.Close()
		return read(r.Content)
	})
}

// FillVolume unpacks an archive of [Client.ReadVolume] in a volume, which should be empty.
func (c *Client) FillVolume(ctx context.Context, name string, archive io.Reader) error {
	return c.withVolume(ctx, name, false, func(ctx context.Context, api *client.Client, id string) error {
		_, err := api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: archive})
		return c.explain(err)
	})
}

// CopyVolume copies the content of one volume to another, which should be empty. Nothing is stored on the way.
func (c *Client) CopyVolume(ctx context.Context, from, to string) error {
	return c.ReadVolume(ctx, from, func(archive io.Reader) error { return c.FillVolume(ctx, to, archive) })
}

// VolumeEmpty reports whether a volume has no content.
func (c *Client) VolumeEmpty(ctx context.Context, name string) (empty bool, err error) {
	empty = true
	errContent := errors.New("there is content")
	err = c.ReadVolume(ctx, name, func(archive io.Reader) error {
		r := tar.NewReader(archive)
		for n := 0; ; n++ {
			_, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil && n > 0 {
				err = errContent
			}
			if err != nil {
				return err
			}
		}
	})
	if errors.Is(err, errContent) {
		return false, nil
	}
	return empty, err
}

// withVolume makes a container that mounts the volume, for as long as use takes.
func (c *Client) withVolume(ctx context.Context, name string, readOnly bool, use func(context.Context, *client.Client, string) error) (err error) {
	what := fmt.Sprintf("write volume %q", name)
	if readOnly {
		what = fmt.Sprintf("read volume %q", name)
	}
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	if _, err := api.VolumeInspect(ctx, name, client.VolumeInspectOptions{}); err != nil {
		return doing(what, c.explain(err)) // creating the container would make it
	}
	id, err := c.makeVolumeAccess(ctx, api, name, readOnly)
	if err != nil {
		return doing(what, c.explain(err))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		if _, e := api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}); e != nil && !gone(e) {
			err = errors.Join(err, doing(what, c.explain(e)))
		}
	}()
	if err := use(ctx, api, id); err != nil {
		return doing(what, err)
	}
	return nil
}

func (c *Client) makeVolumeAccess(ctx context.Context, api *client.Client, volume string, readOnly bool) (string, error) {
	o := client.ContainerCreateOptions{
		Name:   "dev-volume-access-" + rand.Text()[:12],
		Config: &container.Config{Image: volumeAccessImage, Cmd: []string{"/none"}, Labels: map[string]string{LabelVolumeAccess: volume}},
		HostConfig: &container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{{
			Type: mount.TypeVolume, Source: volume, Target: "/" + volumeFolder, ReadOnly: readOnly,
			// What the image has at this place must not be copied into the volume: it has nothing, but the folder's mode would be taken.
			VolumeOptions: &mount.VolumeOptions{NoCopy: true},
		}}},
	}
	r, err := api.ContainerCreate(ctx, o)
	if gone(err) {
		if err = c.makeEmptyImage(ctx, api); err == nil {
			r, err = api.ContainerCreate(ctx, o)
		}
	}
	return r.ID, err
}

// endVolumeAccess removes what a process that was killed left behind while it read or wrote the volume. It reports whether there was anything.
func (c *Client) endVolumeAccess(ctx context.Context, api *client.Client, volume string) bool {
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", LabelVolumeAccess+"="+volume)})
	if err != nil {
		return false
	}
	found := false
	for i := range list.Items {
		if list.Items[i].Labels[LabelVolumeAccess] != volume {
			continue
		}
		found = true
		if _, err := api.ContainerRemove(ctx, list.Items[i].ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			c.log.Debug("volume access stays", "container", list.Items[i].ID, "error", err)
		}
	}
	return found
}

// makeEmptyImage makes an image of nothing.
func (c *Client) makeEmptyImage(ctx context.Context, api *client.Client) error {
	var content bytes.Buffer
	if err := tar.NewWriter(&content).Close(); err != nil {
		return err
	}
	r, err := api.ImageImport(ctx, client.ImageImportSource{Source: &content, SourceName: "-"}, volumeAccessImage, client.ImageImportOptions{
		Changes: []string{"LABEL " + LabelVolumeAccess + "=image"},
	})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// VolumeUsers are the containers, of any project, that mount a volume.
func (c *Client) VolumeUsers(ctx context.Context, name string) ([]compose.Container, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("volume", name)})
	if err != nil {
		return nil, doing(fmt.Sprintf("list the users of volume %q", name), c.explain(err))
	}
	var out []compose.Container
	for i := range list.Items {
		if u := newContainer(&list.Items[i]); u.Labels[LabelVolumeAccess] == "" {
			out = append(out, u)
		}
	}
	return out, nil
}
