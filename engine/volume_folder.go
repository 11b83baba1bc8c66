// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/moby/client"
)

// VolumeFolder is the folder with a volume's content where this process may use it in place of the engine: it is root, the engine is this computer's own, and
// the volume is a plain folder there. Empty otherwise.
func (c *Client) VolumeFolder(ctx context.Context, name string) (string, error) {
	root, err := c.ownRoot(ctx)
	if err != nil || root == "" {
		return "", err
	}
	api, err := c.conn(ctx)
	if err != nil {
		return "", err
	}
	r, err := api.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
	if err != nil {
		return "", c.explain(err)
	}
	v := r.Volume
	if v.Driver != "local" || len(v.Options) > 0 || v.Mountpoint != filepath.Join(root, "volumes", v.Name, "_data") {
		return "", nil
	}
	if info, err := os.Lstat(v.Mountpoint); err != nil || !info.IsDir() {
		return "", nil //nolint:nilerr // a folder that cannot be read here is read through the engine
	}
	return v.Mountpoint, nil
}

// ownRoot is the engine's data folder if that is on this computer, and empty otherwise. A machine's engine may have a folder of the same name: the file with
// the engine's identity tells them apart.
func (c *Client) ownRoot(ctx context.Context) (string, error) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 || !strings.HasPrefix(c.host, "unix://") {
		return "", nil
	}
	c.rooting.Lock()
	defer c.rooting.Unlock()
	if c.root != nil {
		return *c.root, nil
	}
	info, err := c.Info(ctx)
	if err != nil {
		return "", err
	}
	root := ""
	id, err := os.ReadFile(filepath.Join(info.DockerRootDir, "engine-id"))
	mapped := slices.ContainsFunc(info.SecurityOptions, func(o string) bool {
		return strings.Contains(o, "name=userns") || strings.Contains(o, "name=rootless")
	})
	if err == nil && info.ID != "" && strings.TrimSpace(string(id)) == info.ID && !mapped {
		root = info.DockerRootDir
	}
	c.root = &root
	return root, nil
}
