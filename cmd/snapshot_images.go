// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/snapshots"
)

// saveImages saves the images of the project's containers, one for each service. Services with the same image share its content.
func saveImages(ctx context.Context, e *engine.Client, store snapshots.Store, containers []compose.Container) ([]snapshots.Image, error) {
	var images []snapshots.Image
	for _, c := range containers {
		if c.OneOff() || slices.ContainsFunc(images, func(i snapshots.Image) bool { return i.Service == c.Service() }) {
			continue
		}
		im := snapshots.Image{Service: c.Service(), Ref: c.Image, ID: c.ImageID}
		same := slices.IndexFunc(images, func(i snapshots.Image) bool { return i.Ref == im.Ref && i.ID == im.ID })
		if same >= 0 {
			im = images[same]
			im.Service = c.Service()
			images = append(images, im)
			continue
		}
		if err := saveImage(ctx, e, store, &im); err != nil {
			return nil, err
		}
		images = append(images, im)
	}
	return images, nil
}

// saveImage saves one image: by its reference, so that this comes back, too; by its ID where the reference means another one by now.
func saveImage(ctx context.Context, e *engine.Client, store snapshots.Store, im *snapshots.Image) error {
	local, err := localImage(ctx, e, im.Ref)
	if err != nil {
		return err
	}
	name := im.ID
	if local.ID == im.ID {
		name, im.Digests = im.Ref, local.Digests
	}
	return e.SaveImage(ctx, name, func(archive io.Reader) error {
		b, err := store.Add(ctx, archive, 0)
		im.Blob, im.Size, im.Compressed = b.Digest, b.Size, b.Compressed
		return err
	})
}

// localImage is an image of the engine; its ID is empty if there is none.
func localImage(ctx context.Context, e *engine.Client, ref string) (compose.Image, error) {
	have, err := e.Observe(ctx, compose.Query{Images: []string{ref}, SkipNetworks: true, SkipVolumes: true})
	return have.Images[ref], err
}

// loadImages brings back those images of a snapshot that are gone. A reference that means another image by now is left alone, and told of.
func (r *restore) loadImages(ctx context.Context, snap snapshots.Snapshot) error {
	for _, im := range snap.Images {
		local, err := localImage(ctx, r.e, im.Ref)
		switch {
		case err != nil:
			return err
		case local.ID == im.ID:
			continue
		case local.ID != "":
			r.a.warn(fmt.Sprintf("service %s: image %s is another one than in the snapshot, and stays", im.Service, im.Ref))
			continue
		case im.Blob == "":
			continue // of an earlier release
		}
		archive, err := r.store.Open(im.Blob)
		if err != nil {
			return err
		}
		err = r.e.LoadImage(ctx, archive)
		_ = archive.Close() // it was only read
		if err != nil {
			return fmt.Errorf("bring back image %q: %w", im.Ref, err)
		}
		r.a.say("image " + im.Ref + " is back")
	}
	return nil
}
