// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine"
)

type attachOptions struct {
	noStdin, sigProxy bool
	index             int
	detachKeys        string
}

func newAttachCommand(a *app) *cobra.Command {
	var o attachOptions
	c := &cobra.Command{
		Use:     "attach [OPTIONS] SERVICE",
		Short:   "Connect your terminal to a running container",
		GroupID: groupRun,
		Long: `Connects input and output to the main process of a running container. Signals go to
it, too; ctrl-p,ctrl-q leaves it running. The exit status is the container's.`,
		Args:              takes(1, 1, "SERVICE"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runAttach(c.Context(), o, args[0])
		},
	}
	f := c.Flags()
	f.BoolVar(&o.noStdin, "no-stdin", false, "do not pass on standard input")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on to the container")
	f.IntVar(&o.index, "index", 0, "`NUMBER` of the container, when the service has several")
	f.StringVar(&o.detachKeys, "detach-keys", "", "`KEYS` that leave the container running (default: ctrl-p,ctrl-q)")
	return c
}

func (a *app) runAttach(ctx context.Context, o attachOptions, service string) error {
	name, err := a.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	c, err := a.findContainer(ctx, e, name, service, o.index)
	if err != nil {
		return err
	}
	s := engine.Streams{Out: a.out, Err: a.err, Terminal: a.console(), DetachKeys: o.detachKeys}
	if !o.noStdin {
		s.In = a.in
	}
	if o.sigProxy {
		ctx = context.WithoutCancel(ctx)
		defer a.proxySignals(ctx, e, c.ID)()
	}
	return detachedIsFine(e.Attach(ctx, c.ID, s))
}
