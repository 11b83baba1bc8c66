// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

type cpOptions struct {
	engine.CopyOptions
	index int
	all   bool
}

func newCpCommand(a *app) *cobra.Command {
	var o cpOptions
	c := &cobra.Command{
		Use:     "cp [OPTIONS] SERVICE:SRC_PATH DEST_PATH|- | SRC_PATH|- SERVICE:DEST_PATH",
		Short:   "Copy files between containers and this computer",
		GroupID: groupRun,
		Long: `Copies a file or a folder into the containers of a service, or out of one of them.
They need not run, and need no shell or tar. With - in place of the path on this
computer, a tar archive is read from standard input or written to standard output.`,
		Example: `  dev cp web:/etc/nginx ./nginx          out of the first container
  dev cp config.json web:/etc/app/       into all containers of the service
  dev cp --index 2 app.log web:/tmp      into the second only
  dev cp web:/var/log - | tar -t`,
		Args: takes(2, 2, "SOURCE DESTINATION"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runCp(c.Context(), o, args[0], args[1])
		},
	}
	f := c.Flags()
	f.IntVar(&o.index, "index", 0, "`NUMBER` of the container, when the service has several")
	f.BoolVar(&o.all, "all", false, "also containers that run made")
	f.BoolVarP(&o.FollowLink, "follow-link", "L", false, "copy what a symbolic link in the source path leads to")
	f.BoolVarP(&o.ToUser, "archive", "a", false, "give files that go into a container to the user that it runs as")
	return c
}

// cpSide is one of the two arguments of cp: a path in a service, or on this computer when the service is empty.
type cpSide struct{ service, path string }

// parseCpSide reads an argument. ./name:with:colons and absolute paths are on this computer.
func parseCpSide(arg string) cpSide {
	service, path, found := strings.Cut(arg, ":")
	if !found || filepath.IsAbs(arg) || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return cpSide{path: arg}
	}
	return cpSide{service, path}
}

func (s cpSide) String() string {
	if s.service == "" {
		return s.path
	}
	return s.service + ":" + s.path
}

func (a *app) runCp(ctx context.Context, o cpOptions, source, destination string) error {
	from, to := parseCpSide(source), parseCpSide(destination)
	switch {
	case from.path == "" || to.path == "":
		return usagef("a path is missing: write SERVICE:/path")
	case from.service != "" && to.service != "":
		return withHint(errors.New("cp does not copy between services"), "dev cp %s - | dev cp - %s", from, to)
	case from.service == "" && to.service == "":
		return usagef("neither %q nor %q is in a service: write SERVICE:/path", source, destination)
	}
	return a.onContainers(ctx, func(e *engine.Client, have compose.Snapshot) error {
		if from.service != "" {
			return a.copyOut(ctx, e, o, have, from, to.path)
		}
		return a.copyIn(ctx, e, o, have, from.path, to)
	})
}

// targets are the containers that files go into: all of the service, or the one with the number.
func (o cpOptions) targets(have compose.Snapshot, service string) ([]compose.Container, error) {
	if o.index > 0 {
		c, err := pickAnyContainer(have, service, o.index)
		return []compose.Container{c}, err
	}
	var out []compose.Container
	for _, c := range containersOf(have, []string{service}) {
		if o.all || !c.OneOff() {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		_, err := pickAnyContainer(have, service, 0)
		return nil, err
	}
	return out, nil
}

// source is the container that files come out of: the first of the service, running ones before others.
func (o cpOptions) source(have compose.Snapshot, service string) (compose.Container, error) {
	c, err := pickAnyContainer(have, service, o.index)
	if err == nil || !o.all || o.index > 0 {
		return c, err
	}
	if all := containersOf(have, []string{service}); len(all) > 0 {
		return all[0], nil
	}
	return c, err
}

func (a *app) copyOut(ctx context.Context, e *engine.Client, o cpOptions, have compose.Snapshot, from cpSide, local string) error {
	c, err := o.source(have, from.service)
	if err != nil {
		return err
	}
	if local == "-" {
		if isTerminal(a.out) {
			return withHint(errors.New("an archive is not for a terminal"), "dev cp %s - | tar -t", from)
		}
		if a.dryRun {
			return nil
		}
		return e.CopyArchiveFrom(ctx, c.ID, from.path, a.out, o.CopyOptions)
	}
	path, err := a.cpPath(local)
	if err != nil {
		return err
	}
	if a.dryRun {
		return a.sayDryRun("copy %s:%s to %s", c.Name, from.path, local)
	}
	p := a.startProgress("copy", false)
	defer p.close()
	return showCopy(p, c, fmt.Sprintf("%s:%s to %s", c.Name, from.path, local), func() error {
		return e.CopyFrom(ctx, c.ID, from.path, path, o.CopyOptions)
	})
}

func (a *app) copyIn(ctx context.Context, e *engine.Client, o cpOptions, have compose.Snapshot, local string, to cpSide) (err error) {
	containers, err := o.targets(have, to.service)
	if err != nil {
		return err
	}
	if a.dryRun {
		for _, c := range containers {
			err = errors.Join(err, a.sayDryRun("copy %s to %s:%s", local, c.Name, to.path))
		}
		return err
	}
	do := func(c compose.Container, path string) error { return e.CopyTo(ctx, c.ID, path, to.path, o.CopyOptions) }
	path := ""
	if local == "-" {
		open, done, err := a.shareInput(len(containers))
		if err != nil {
			return err
		}
		defer done()
		do = func(c compose.Container, _ string) error {
			return e.CopyArchiveTo(ctx, c.ID, open(), to.path, o.CopyOptions)
		}
	} else if path, err = a.cpPath(local); err != nil {
		return err
	}
	p := a.startProgress("copy", false)
	defer p.close()
	var g errgroup.Group
	for _, c := range containers {
		g.Go(func() error {
			return showCopy(p, c, fmt.Sprintf("%s to %s:%s", local, c.Name, to.path), func() error { return do(c, path) })
		})
	}
	return g.Wait()
}

// showCopy copies and shows how it goes.
func showCopy(p progress, c compose.Container, what string, do func() error) error {
	row := status{ID: "Container " + c.Name, Text: "Copying", Details: what}
	p.show(row)
	if err := do(); err != nil {
		row.Text, row.State = "Error", rowFailed
		p.show(row)
		return fmt.Errorf("copy %s: %w", what, err)
	}
	row.Text, row.State = "Copied", rowDone
	p.show(row)
	return nil
}

// cpPath makes a path of this computer absolute. A / or /. at its end means something to cp and stays.
func (a *app) cpPath(local string) (string, error) {
	path, err := a.path(local)
	if err != nil {
		return "", err
	}
	path = filepath.Clean(path)
	slashed := filepath.ToSlash(local)
	switch {
	case slashed == "." || strings.HasSuffix(slashed, "/."):
		return path + string(filepath.Separator) + ".", nil
	case strings.HasSuffix(slashed, "/") && !strings.HasSuffix(path, string(filepath.Separator)):
		return path + string(filepath.Separator), nil
	}
	return path, nil
}

// shareInput lets several readers have the whole of standard input each: one reads it as it comes, several from a copy in a file.
func (a *app) shareInput(readers int) (open func() io.Reader, done func(), err error) {
	if readers == 1 {
		return func() io.Reader { return a.in }, func() {}, nil
	}
	f, err := os.CreateTemp("", "dev-cp-*")
	if err != nil {
		return nil, nil, fmt.Errorf("keep standard input for several containers: %w", err)
	}
	done = func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	size, err := io.Copy(f, a.in)
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("read standard input: %w", err)
	}
	return func() io.Reader { return io.NewSectionReader(f, 0, size) }, done, nil
}
