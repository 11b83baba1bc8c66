// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/moby/moby/client"
)

// ContainerOwner finds out whom files in a container must belong to so that its user may use them: the user it runs as. A name is looked up in the
// container's own /etc/passwd and /etc/group. It is root if the container names no user, or one that those files do not have.
func (c *Client) ContainerOwner(ctx context.Context, containerID string) (Owner, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return Owner{}, err
	}
	r, err := api.ContainerInspect(ctx, containerID, client.ContainerInspectOptions{})
	if err != nil {
		return Owner{}, c.explain(err)
	}
	user, group, _ := strings.Cut(r.Container.Config.User, ":")
	if user == "" {
		return Owner{}, nil
	}
	read := func(path string) (string, error) {
		text, err := readContainerFile(ctx, api, containerID, path)
		if gone(err) {
			return "", nil
		}
		return text, c.explain(err)
	}
	passwd, err := read("/etc/passwd")
	if err != nil {
		return Owner{}, err
	}
	groups := ""
	if group != "" {
		if groups, err = read("/etc/group"); err != nil {
			return Owner{}, err
		}
	}
	return findOwner(user, group, passwd, groups), nil
}

// findOwner resolves a container's user as runtimes do: names by the files, numbers as they are; the group of a user without one is in passwd.
func findOwner(user, group, passwd, groups string) Owner {
	var o Owner
	if n, err := strconv.Atoi(user); err == nil {
		o.UID = n
	}
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(line), ":") // name:password:uid:gid:…
		if len(f) >= 4 && (f[0] == user || f[2] == user) {
			o.UID, _ = strconv.Atoi(f[2])
			o.GID, _ = strconv.Atoi(f[3])
			break
		}
	}
	if group == "" {
		return o
	}
	o.GID, _ = strconv.Atoi(group)
	for line := range strings.Lines(groups) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) >= 3 && f[0] == group { // name:password:gid:…
			o.GID, _ = strconv.Atoi(f[2])
		}
	}
	return o
}

// accountFile bounds what is read of a container's /etc/passwd.
const accountFile = 1 << 20

// readContainerFile reads a small file of a container.
func readContainerFile(ctx context.Context, api *client.Client, id, path string) (string, error) {
	r, err := api.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: path})
	if err != nil {
		return "", err
	}
	defer r.Content.Close()
	tr := tar.NewReader(bufio.NewReader(r.Content))
	if _, err := tr.Next(); err != nil {
		return "", fmt.Errorf("read %q: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(tr, accountFile))
	return string(b), err
}
