// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	goarchive "github.com/moby/go-archive"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
)

// The label of images that transform a Compose model, and the folders of a container of one, as docker compose has them.
const (
	labelTransformation = "com.docker.compose.bridge"
	transformIn         = "/in"
	transformOut        = "/out"
	transformTemplates  = "/templates"
)

// Transformation is a run of an image that makes another model of a Compose model.
type Transformation struct {
	Image string
	// Model is the Compose model, in YAML: /in/compose.yaml in the container.
	Model []byte
	// Out is a folder of this computer that is there, an absolute path: the container finds in /out what it holds, and what the container leaves there
	// is written to it.
	Out string
	// Templates is a folder of this computer for /templates; empty leaves the image's own.
	Templates string
	// User is who the image's program runs as; empty is the image's own.
	User string
	// Log takes the program's output.
	Log io.Writer
}

// Transform runs a transformation to its end. Files go in and out through the engine's archives, so that it need not run on this computer. An exit code
// other than 0 is an [*ExitError], and nothing is written.
func (c *Client) Transform(ctx context.Context, t Transformation) error {
	return c.withImage(ctx, t.Image, &container.Config{User: t.User, Env: []string{"LICENSE_AGREEMENT=true"}}, func(id string) error {
		var in bytes.Buffer
		if err := transformFolders(&in, t.Model); err != nil {
			return err
		}
		if err := c.CopyArchiveTo(ctx, id, &in, "/", CopyOptions{}); err != nil {
			return err
		}
		if err := c.CopyTo(ctx, id, t.Out+string(filepath.Separator)+".", transformOut, CopyOptions{}); err != nil {
			return err
		}
		if t.Templates != "" {
			if err := c.CopyTo(ctx, id, t.Templates+string(filepath.Separator)+".", transformTemplates, CopyOptions{}); err != nil {
				return err
			}
		}
		if err := c.Run(ctx, id, Streams{Out: t.Log, Err: t.Log}); err != nil {
			return err
		}
		return c.CopyFrom(ctx, id, transformOut+"/.", t.Out, CopyOptions{})
	})
}

// transformFolders writes an archive of the folders that a transformation's program finds. It may be anybody in the container: all may write to /out.
func transformFolders(w io.Writer, model []byte) error {
	out := tar.NewWriter(w)
	now := time.Now()
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: transformIn[1:], Mode: 0o755, ModTime: now},
		{Typeflag: tar.TypeReg, Name: transformIn[1:] + "/compose.yaml", Mode: 0o644, Size: int64(len(model)), ModTime: now},
		{Typeflag: tar.TypeDir, Name: transformOut[1:], Mode: 0o777, ModTime: now},
	} {
		if err := out.WriteHeader(&h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := out.Write(model); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// withImage gives do a created container of an image, and removes it.
func (c *Client) withImage(ctx context.Context, ref string, cfg *container.Config, do func(id string) error) (err error) {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	cfg.Image = ref
	made, err := api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: cfg, HostConfig: &container.HostConfig{}})
	if err != nil {
		return c.explain(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		if _, e := api.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); e != nil && !gone(e) {
			err = errors.Join(err, c.explain(e))
		}
	}()
	return do(made.ID)
}

// CopyTemplates copies the templates of a transformation's image to a folder of this computer, which must not be there yet, as its subfolder "templates".
func (c *Client) CopyTemplates(ctx context.Context, ref, dst string) error {
	return c.withImage(ctx, ref, &container.Config{Cmd: []string{"/none"}}, func(id string) error {
		api, err := c.conn(ctx)
		if err != nil {
			return err
		}
		s, found, err := c.stat(ctx, api, id, transformTemplates)
		switch {
		case err != nil:
			return err
		case !found || !s.Mode.IsDir():
			return withHint(fmt.Errorf("image %q has no folder %s", ref, transformTemplates), "take another with --from: dev bridge transformations ls")
		}
		if err := os.Mkdir(dst, 0o777); errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("the folder %q is there already", dst)
		} else if err != nil {
			return err
		}
		return c.readArchive(ctx, id, transformTemplates, CopyOptions{}, func(content io.Reader, from goarchive.CopyInfo) error {
			return copyError(goarchive.CopyTo(content, from, dst), dst)
		})
	})
}

// Transformations lists the images that say of themselves that they transform Compose models.
func (c *Client) Transformations(ctx context.Context) ([]image.Summary, error) {
	var found []image.Summary
	err := c.optimistic(ctx, func(ctx context.Context, api *client.Client) error {
		list, err := api.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("label", labelTransformation+"=transformation")})
		found = list.Items
		return err
	})
	return found, err
}

// InspectImage returns what the engine knows of an image; found is false if it is not there.
func (c *Client) InspectImage(ctx context.Context, ref string) (r image.InspectResponse, found bool, err error) {
	err = c.optimistic(ctx, func(ctx context.Context, api *client.Client) error {
		res, err := api.ImageInspect(ctx, ref)
		r = res.InspectResponse
		found = err == nil
		if gone(err) {
			return nil
		}
		return err
	})
	return r, found, err
}
