// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newTopCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "top [SERVICE...]",
		Short:   "List the processes in the containers",
		GroupID: groupLook,
		Long: `Lists the processes of the running containers as the engine sees them: the images
need no ps of their own.`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			return a.onContainers(c.Context(), func(e *engine.Client, have compose.Snapshot) error {
				if err := a.checkNames(c.Context(), have, args); err != nil {
					return err
				}
				running := slices.DeleteFunc(containersOf(have, args), func(c compose.Container) bool { return c.State != compose.StateRunning })
				all, err := e.Top(c.Context(), running)
				if err != nil {
					return err
				}
				return newProcessTable(all).write(a.out)
			})
		},
	}
}

// processTable holds the processes of several containers, whose titles may differ.
type processTable struct {
	titles []string
	rows   []map[string]string // by title
}

func newProcessTable(all []engine.Processes) processTable {
	t := processTable{titles: []string{"SERVICE", "#"}}
	for _, p := range all {
		for _, values := range p.Rows {
			row := map[string]string{"SERVICE": p.Container.Service(), "#": p.Container.Labels[compose.LabelContainerNumber]}
			for i, title := range p.Titles {
				if !slices.Contains(t.titles, title) {
					t.titles = append(t.titles, title)
				}
				if i < len(values) {
					row[title] = values[i]
				}
			}
			t.rows = append(t.rows, row)
		}
	}
	// The command is the widest: it stands last.
	if i := slices.Index(t.titles, "CMD"); i >= 0 {
		t.titles = append(slices.Delete(t.titles, i, i+1), "CMD")
	}
	return t
}

// write prints the table as docker compose does; nothing when there are no processes.
func (t processTable) write(w io.Writer) error {
	if len(t.rows) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 4, 1, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(t.titles, "\t"))
	for _, row := range t.rows {
		cells := make([]string, len(t.titles))
		for i, title := range t.titles {
			cells[i] = "-"
			if v, ok := row[title]; ok {
				cells[i] = v
			}
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}
