// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

type logsOptions struct {
	follow, noColor, noPrefix, timestamps bool
	history                               bool
	index                                 int
	since, until, tail                    string
}

func newLogsCommand(a *app) *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:     "logs [OPTIONS] [SERVICE...]",
		Short:   "Show the output of containers",
		GroupID: groupLook,
		Long: `Shows what the containers of the services wrote, in the order of time. With -f it
goes on as they write, through restarts and recreations, until all have ended or
Ctrl-C. --history shows what containers wrote that were recreated since, too: web-1~2
is the second oldest that is kept of web-1.`,
		Example: `  dev logs -f web              follow one service
  dev logs --history web       what its earlier containers wrote, too
  dev logs -n 20 --since 10m   the last 20 lines of each container, not older than 10 minutes`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if o.index > 0 && len(args) != 1 {
				return usagef("--index needs exactly one service")
			}
			if _, err := strconv.ParseUint(o.tail, 10, 32); err != nil && o.tail != "all" && o.tail != "" {
				return usagef("--tail %q is neither a number nor all", o.tail)
			}
			return a.runLogs(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on as containers write")
	f.BoolVar(&o.history, "history", false, "show the output of containers that were recreated since, too")
	f.IntVar(&o.index, "index", 0, "`NUMBER` of the container, when the service has several")
	f.StringVar(&o.since, "since", "", "leave out lines before a `TIME`: 2013-01-02T13:23:37Z, or 42m for 42 minutes ago")
	f.StringVar(&o.until, "until", "", "leave out lines after a `TIME`")
	f.BoolVar(&o.noColor, "no-color", false, "show output without colors")
	f.BoolVar(&o.noPrefix, "no-log-prefix", false, "show output without the containers' names")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "show when each line came")
	f.StringVarP(&o.tail, "tail", "n", "all", "show this `NUMBER` of lines from the end of each container's output")
	return c
}

func (a *app) runLogs(ctx context.Context, o logsOptions, services []string) error {
	p, name, err := a.loadOrName(ctx)
	if err != nil {
		return err
	}
	if p != nil {
		if err := checkServices(p, services); err != nil {
			return err
		}
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.Query{Project: name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	shows := o.shows(p, services)
	containers := slices.DeleteFunc(slices.Clone(have.Containers), func(c compose.Container) bool { return !shows(c) })
	printer := a.newLogPrinter(o.noColor, o.noPrefix, o.timestamps)
	for _, c := range containers {
		printer.register(logName(c))
	}
	var earlier []namedLine
	if o.history {
		if earlier, err = a.history(name, o, shows, printer); err != nil {
			return err
		}
	}
	show, rest := withHistory(earlier, printer, printer.logLine)
	lo := engine.LogsOptions{Since: o.since, Until: o.until, Tail: o.tail, Follow: o.follow}
	if o.follow {
		rest() // lines that come as they are written have no order to put it in
		lo.Project, lo.Accept = name, shows
		lo.Ended = printer.ended
	}
	err = e.Logs(ctx, containers, lo, show)
	rest()
	return err
}

// shows chooses containers: those of the named services, else of all that do not opt out with attach: false.
func (o logsOptions) shows(p *types.Project, services []string) func(compose.Container) bool {
	return func(c compose.Container) bool {
		if c.OneOff() {
			return false
		}
		if o.index > 0 && c.Labels[compose.LabelContainerNumber] != strconv.Itoa(o.index) {
			return false
		}
		if len(services) > 0 {
			return slices.Contains(services, c.Service())
		}
		if p == nil {
			return true
		}
		s, ok := p.Services[c.Service()]
		return ok && (s.Attach == nil || *s.Attach)
	}
}

// logName is a container's name before its output.
func logName(c compose.Container) string {
	return shortName(c.Labels[compose.LabelProject], c.Service(), c.Name)
}

// shortName leaves out the project of a container's name where the name is the usual one: "web-1".
func shortName(project, service, name string) string {
	for _, sep := range []string{"-", "_"} {
		if number, ok := strings.CutPrefix(name, project+sep+service+sep); ok {
			if _, err := strconv.ParseUint(number, 10, 32); err == nil {
				return service + sep + number
			}
		}
	}
	return name
}

// newLogPrinter makes a printer of containers' output on stdout and stderr.
func (a *app) newLogPrinter(noColor, noPrefix, timestamps bool) *logPrinter {
	return &logPrinter{out: a.out, err: a.err, paint: a.painter(a.out, noColor), prefix: !noPrefix, timestamps: timestamps}
}

func (p *logPrinter) logLine(l engine.LogLine) {
	p.line(logName(l.Container), l.Stderr, l.Time, l.Text)
}

// ended tells that a container has ended; one that was removed has said so elsewhere.
func (p *logPrinter) ended(c compose.Container, end engine.End) {
	switch {
	case end.Removed:
	case end.Restarting:
		p.status(logName(c), fmt.Sprintf("exited with code %d (restarting)", end.Code))
	default:
		p.status(logName(c), fmt.Sprintf("exited with code %d", end.Code))
	}
}
