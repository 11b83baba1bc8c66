// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// copyFiles puts the operation's files into a container that has not started yet, all in one archive.
func (t *task) copyFiles(ctx context.Context) error {
	content, err := archive(t.op.Files)
	if err != nil {
		return err
	}
	_, err = t.api.CopyToContainer(ctx, t.id, client.CopyToContainerOptions{DestinationPath: "/", Content: bytes.NewReader(content)})
	if says(err, "rootfs is marked read-only") {
		return withHint(fmt.Errorf("the container's file system is read-only, so that %s cannot be put there", fileNames(t.op.Files)),
			"give the config or secret as a file, which is mounted, or drop read_only: true")
	}
	return err
}

func fileNames(files []compose.File) string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return strings.Join(names, ", ")
}

// archive packs files with their owners and modes. Folders on the way are left to the engine, which makes missing ones.
func archive(files []compose.File) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Size: int64(len(f.Content)),
			Uid: f.UID, Gid: f.GID, Mode: int64(f.Mode),
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack file %q: %w", f.Path, err)
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, fmt.Errorf("pack file %q: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return buf.Bytes(), nil
}
