// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newEventsCommand(a *app) *cobra.Command {
	var asJSON bool
	var o engine.EventsOptions
	c := &cobra.Command{
		Use:               "events [OPTIONS] [SERVICE...]",
		Short:             "Show what happens to the containers as it happens",
		GroupID:           groupLook,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runEvents(c.Context(), o, asJSON, args)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "show each event as a line of JSON")
	c.Flags().StringVar(&o.Since, "since", "", "begin with events of the past: since a `TIME`, or 10m for 10 minutes ago")
	c.Flags().StringVar(&o.Until, "until", "", "end at a `TIME`")
	return c
}

func (a *app) runEvents(ctx context.Context, o engine.EventsOptions, asJSON bool, services []string) error {
	var err error
	if o.Project, err = a.projectNameOnly(ctx); err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	var broken error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = e.Events(ctx, o, func(ev engine.Event) {
		if len(services) > 0 && !slices.Contains(services, ev.Service) {
			return
		}
		if err := a.showEvent(ev, asJSON); err != nil && broken == nil {
			broken = err
			cancel()
		}
	})
	if broken != nil {
		return broken
	}
	return err
}

// showEvent writes an event in docker compose's two forms.
func (a *app) showEvent(ev engine.Event, asJSON bool) error {
	attributes := ownAttributes(ev.Attributes)
	if asJSON {
		return writeJSON(a.out, map[string]any{
			"time": ev.Time, "type": ev.Type, "service": ev.Service, "id": ev.ID, "action": ev.Action, "attributes": attributes,
		})
	}
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(attributes)) {
		pairs = append(pairs, k+"="+attributes[k])
	}
	_, err := fmt.Fprintf(a.out, "%s %s %s %s (%s)\n",
		ev.Time.Local().Format("2006-01-02 15:04:05.000000"), ev.Type, ev.Action, ev.ID, strings.Join(pairs, ", "))
	return err
}

// ownAttributes leaves out the labels by which Compose finds its containers.
func ownAttributes(all map[string]string) map[string]string {
	own := map[string]string{}
	for k, v := range all {
		if !strings.HasPrefix(k, "com.docker.compose.") && k != compose.LabelServiceConfig {
			own[k] = v
		}
	}
	return own
}
