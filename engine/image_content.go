// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/client"
)

// SaveImage gives a local image, named by reference or ID, as an archive with all its layers. With a reference, [Client.LoadImage] brings that back, too.
func (c *Client) SaveImage(ctx context.Context, ref string, read func(archive io.Reader) error) error {
	what := fmt.Sprintf("save image %q", ref)
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	r, err := api.ImageSave(ctx, []string{ref})
	if err != nil {
		return doing(what, c.explain(err))
	}
	defer r.Close()
	if err := read(r); err != nil {
		return doing(what, err)
	}
	return nil
}

// LoadImage brings an archive of [Client.SaveImage] back.
func (c *Client) LoadImage(ctx context.Context, archive io.Reader) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	r, err := api.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return doing("load an image", c.explain(err))
	}
	defer r.Close()
	for messages := json.NewDecoder(r); ; {
		var m struct {
			Error string `json:"error"`
		}
		err := messages.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && m.Error != "" {
			err = errors.New(m.Error)
		}
		if err != nil {
			return doing("load an image", err)
		}
	}
}
