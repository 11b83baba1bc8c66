// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newExportCommand(a *app) *cobra.Command {
	var index int
	var output string
	c := &cobra.Command{
		Use:     "export [OPTIONS] SERVICE",
		Short:   "Write a container's file system as a tar archive",
		GroupID: groupImages,
		Example: `  dev export -o web.tar web
  dev export web | tar -t`,
		Args:              takes(1, 1, "SERVICE"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runExport(c.Context(), args[0], index, output)
		},
	}
	c.Flags().IntVar(&index, "index", 0, "`NUMBER` of the container, when the service has several")
	c.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` instead of standard output")
	return c
}

func (a *app) runExport(ctx context.Context, service string, index int, output string) error {
	if output == "" && isTerminal(a.out) {
		return withHint(errors.New("an archive is not for a terminal"), "write it to a file: dev export -o FILE %s", service)
	}
	return a.onContainers(ctx, func(e *engine.Client, have compose.Snapshot) error {
		c, err := pickAnyContainer(have, service, index)
		if err != nil {
			return err
		}
		if a.dryRun {
			return a.sayDryRun("export container %s", c.Name)
		}
		p := a.startProgress("export", output == "")
		defer p.close()
		row := status{ID: "Container " + c.Name, Text: "Exporting"}
		p.show(row)
		write := func(w io.Writer) error { return e.Export(ctx, c.ID, w) }
		if output == "" {
			err = write(a.out)
		} else {
			err = a.writeWhole(output, write)
		}
		if err != nil {
			row.Text, row.State = "Error", rowFailed
			p.show(row)
			return fmt.Errorf("export container %q: %w", c.Name, err)
		}
		row.Text, row.State = "Exported", rowDone
		p.show(row)
		return nil
	})
}

// writeWhole writes a file that is there in whole or, after an error, as it was before.
func (a *app) writeWhole(name string, write func(io.Writer) error) (err error) {
	path, err := a.path(name)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write %q: it is not a file", name)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := write(buffered); err != nil {
		return err
	}
	if err := errors.Join(buffered.Flush(), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}
