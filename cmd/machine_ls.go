// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

// stateTimeout is the state of a machine that did not answer in time.
const stateTimeout = "Timeout"

const (
	// listWait is how long `ls` waits for machines: their host agents are on this host and answer from memory. One that hangs must not hold up
	// the list.
	listWait = 400 * time.Millisecond
	// answerWait is how long commands about one machine wait for it.
	answerWait = 10 * time.Second
)

func inSeconds(n int) time.Duration { return time.Duration(n) * time.Second }

// rows looks at all machines at once, each for at most wait.
func (m *machines) rows(ctx context.Context, wait time.Duration) ([]machineRow, error) {
	s, err := m.store()
	if err != nil {
		return nil, err
	}
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	used, err := m.activeName()
	if err != nil {
		m.warn(err.Error())
	}
	rows := make([]machineRow, len(list))
	var all sync.WaitGroup
	for i, one := range list {
		all.Go(func() { rows[i] = m.row(ctx, one, wait, used) })
	}
	all.Wait()
	slices.SortFunc(rows, func(a, b machineRow) int { return compareNatural(a.Name, b.Name) })
	return rows, nil
}

// row looks at one machine. used is the machine that `use` named.
func (m *machines) row(ctx context.Context, one *machine.Machine, wait time.Duration, used string) machineRow {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	began := time.Now()
	st := one.Status(ctx)
	r := newMachineRow(one, st)
	r.ResponseTime = time.Since(began)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && r.State != machineState(string(machine.PhaseBroken)) {
		r.State = stateTimeout
	}
	host := m.getenv("DOCKER_HOST")
	r.ActiveHost = r.State == "Running" && (host != "" && (host == r.URL || host == r.TCP) || host == "" && used == r.Name)
	if r.ActiveHost {
		r.Active = "*"
	}
	return r
}

// newMachineRow says what is known of a machine.
func newMachineRow(one *machine.Machine, st machine.Status) machineRow {
	spec := one.Spec
	r := machineRow{
		Name: one.Name, Active: "-", DriverName: spec.Driver, Phase: string(st.Phase), State: machineState(string(st.Phase)),
		EngineOptions: spec.Engine, DockerVersion: "Unknown", Arch: spec.Arch, CPUs: spec.CPUs, MemoryMiB: spec.MemoryMiB, DiskMiB: spec.DiskMiB,
		Image: spec.Image, Labels: spec.Labels,
	}
	for _, p := range st.Problems {
		r.Problems = append(r.Problems, p.Error())
	}
	r.Error = strings.Join(r.Problems, "; ")
	r.Error = strings.ReplaceAll(r.Error, "\n", " ")
	if a := st.Agent; a != nil && a.Engine != "" {
		r.DockerVersion = versionText(a.Engine)
	} else if st.Phase == machine.PhaseSuspended {
		if noted := one.SavedState(); noted != nil && noted.Engine != "" {
			r.DockerVersion = versionText(noted.Engine)
		}
	}
	if r.State != "Running" {
		return r
	}
	r.URL = st.Endpoint
	if a := st.Agent; a != nil {
		r.SSH, r.Ports = a.SSH, a.Ports
		if a.TCP != "" {
			r.TCP = "tcp://" + a.TCP
		}
	}
	return r
}

// versionText is an engine's version as docker-machine shows it.
func versionText(v string) string { return "v" + strings.TrimPrefix(v, "v") }

type machineLs struct {
	quiet, asJSON bool
	filters       []string
	timeout       int
	format        string
}

func newMachineLsCommand(m *machines) *cobra.Command {
	var o machineLs
	c := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List machines",
		Long: `List the machines and how they are. A machine that is broken or does not answer is
listed with what is wrong.

--format is json, a Go template such as '{{.Name}}: {{.State}}', or one after the
word table, which gets headings. Its fields: Name Active ActiveHost DriverName
State Phase URL TCP SSH Error Problems DockerVersion ResponseTime Arch CPUs
MemoryMiB DiskMiB Image Labels EngineOptions Ports.`,
		Example: `  dev machine ls --filter state=running --filter name=^web
  dev machine ls --format '{{.Name}} {{.URL}}'`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return m.runLs(c.Context(), o) },
	}
	f := c.Flags()
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show only names")
	f.StringArrayVar(&o.filters, "filter", nil, "list only those with `KEY=VALUE`: driver, state, name (a pattern), label; may be repeated")
	f.IntVarP(&o.timeout, "timeout", "t", 0, "`SECONDS` to wait for each machine's answer (default: 0.4)")
	f.StringVarP(&o.format, "format", "f", machineTable, "json, or a Go `TEMPLATE`")
	f.BoolVar(&o.asJSON, "json", false, "the same as --format json")
	f.Lookup("format").DefValue = "table"
	return c
}

func (m *machines) runLs(ctx context.Context, o machineLs) error {
	filter, err := parseMachineFilters(o.filters)
	if err != nil {
		return err
	}
	wait := listWait
	if o.timeout > 0 {
		wait = inSeconds(o.timeout)
	}
	rows, err := m.rows(ctx, wait)
	if err != nil {
		return err
	}
	kept := []machineRow{}
	var names []string
	for _, r := range rows {
		if filter.keeps(r) {
			kept, names = append(kept, r), append(names, r.Name)
		}
	}
	switch {
	case o.quiet:
		return m.printLines(names)
	case o.asJSON:
		o.format = "json"
	}
	return writeMachines(m.out, kept, o.format)
}

type machineStatus struct {
	asJSON, watch bool
	format        string
}

func newMachineStatusCommand(m *machines) *cobra.Command {
	var o machineStatus
	c := &cobra.Command{
		Use:   "status [OPTIONS] [MACHINE]",
		Short: "Print how a machine is",
		Long: `Print a machine's state: Running, Stopped, Starting, Stopping, Saved, Error or
Timeout. --format has the fields of ls. With --watch it follows what happens:
stages of a start, published ports, problems; with --json as lines of JSON.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE:              func(c *cobra.Command, args []string) error { return m.runStatus(c.Context(), o, args) },
	}
	f := c.Flags()
	f.StringVarP(&o.format, "format", "f", "{{.State}}", "json, or a Go `TEMPLATE`")
	f.BoolVar(&o.asJSON, "json", false, "print all that is known as JSON")
	f.BoolVarP(&o.watch, "watch", "w", false, "follow what happens until Ctrl-C")
	return c
}

func (m *machines) runStatus(ctx context.Context, o machineStatus, args []string) error {
	one, err := m.one(args)
	if err != nil {
		return err
	}
	if o.watch {
		return m.watch(ctx, one, o.asJSON)
	}
	used, err := m.activeName()
	if err != nil {
		m.warn(err.Error())
	}
	row := m.row(ctx, one, answerWait, used)
	if o.asJSON || o.format == "json" {
		return writeJSON(m.out, row)
	}
	for _, p := range row.Problems {
		m.warn(fmt.Sprintf("machine %q: %s", row.Name, p))
	}
	return writeMachines(m.out, []machineRow{row}, o.format)
}

// watch follows the events of a machine's host agent until it ends or the user has seen enough.
func (m *machines) watch(ctx context.Context, one *machine.Machine, asJSON bool) error {
	var broken error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := one.Agent().Events(ctx, func(e hostagent.Event) {
		if err := m.showMachineEvent(e, asJSON); err != nil && broken == nil {
			broken = err
			cancel()
		}
	})
	if broken != nil {
		return broken
	}
	if errors.Is(err, hostagent.ErrNotRunning) {
		return withHint(fmt.Errorf("watch machine %q: %w", one.Name, err), "%s", m.typed("start", one.Name))
	}
	return err
}

func (m *machines) showMachineEvent(e hostagent.Event, asJSON bool) error {
	if asJSON {
		return writeJSON(m.out, e)
	}
	_, err := fmt.Fprintf(m.out, "%s %-8s %s\n", e.Time.Local().Format("15:04:05.000"), e.Kind, eventText(e))
	return err
}

// eventText says an event in words.
func eventText(e hostagent.Event) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	add(string(e.Phase))
	add(string(e.Stage))
	if p := e.Port; p != nil {
		add(fmt.Sprintf("%s/%s -> %s", p.Host, p.Protocol, p.Guest))
		add(p.Container)
		add(p.Problem)
	}
	if p := e.Problem; p != nil {
		add(p.Text)
		add(p.Hint)
	}
	add(e.Text)
	return strings.Join(parts, " ")
}

// running is the status of a machine that must run.
func (m *machines) running(ctx context.Context, one *machine.Machine) (machine.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	st := one.Status(ctx)
	switch {
	case st.Phase.Up():
		return st, nil
	case st.Phase == machine.PhaseBroken:
		return st, fmt.Errorf("machine %q is broken: %w", one.Name, errors.Join(st.Problems...))
	case st.Phase == machine.PhaseSuspended:
		return st, withHint(fmt.Errorf("machine %q is suspended", one.Name), "%s", m.typed("resume", one.Name))
	}
	return st, withHint(fmt.Errorf("machine %q is not running: it is %s", one.Name, st.Phase), "%s", m.typed("start", one.Name))
}

// inspection is a machine as `inspect` shows it: what docker-machine's templates name, and ours.
type inspection struct {
	ConfigVersion int
	Driver        inspectedDriver
	DriverName    string
	HostOptions   inspectedOptions
	Name          string
	Spec          machine.Spec
	Status        machineRow
	// Agent is what the host agent says now, Saved what was noted when the memory was saved of a machine that does not run.
	Agent *hostagent.Status   `json:",omitempty"`
	Saved *machine.SavedState `json:",omitempty"`
}

type inspectedDriver struct {
	IPAddress, MachineName, SSHUser string
	SSHPort                         int
	SSHKeyPath, StorePath           string
	CPU, Memory, DiskSize           int
}

type inspectedOptions struct {
	Driver        string
	Memory, Disk  int
	EngineOptions inspectedEngine
	AuthOptions   inspectedAuth
}

type inspectedEngine struct {
	ArbitraryFlags, Env, InsecureRegistry, Labels []string
	RegistryMirror                                []string
	StorageDriver                                 string
	TLSVerify                                     bool `json:"TlsVerify"`
}

type inspectedAuth struct {
	CertDir, CaCertPath, ClientCertPath, ClientKeyPath, StorePath string
	ServerCertSANs                                                []string
}

func newMachineInspectCommand(m *machines) *cobra.Command {
	var format string
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect [OPTIONS] [MACHINE]",
		Short: "Print all that is known of a machine",
		Long: `Print all that is known of a machine as JSON: its spec, how it is, and what
docker-machine's templates name, such as '{{.Driver.IPAddress}}' or
'{{.HostOptions.EngineOptions.Labels}}'.`,
		Example: `  dev machine inspect --format '{{.Status.Phase}} {{.Spec.CPUs}}'
  dev machine inspect --format '{{prettyjson .Driver}}' box`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			if asJSON {
				format = ""
			}
			return m.runInspect(c.Context(), format, args)
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `TEMPLATE`; it has the functions json and prettyjson")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, which is the default")
	return c
}

func (m *machines) runInspect(ctx context.Context, format string, args []string) error {
	one, err := m.one(args)
	if err != nil {
		return err
	}
	used, err := m.activeName()
	if err != nil {
		m.warn(err.Error())
	}
	x := m.inspect(ctx, one, used)
	if format == "" || format == "json" {
		data, err := json.MarshalIndent(x, "", "    ")
		if err != nil {
			return fmt.Errorf("inspect machine %q: %w", one.Name, err)
		}
		return m.printLines([]string{string(data)})
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	if err := t.Execute(m.out, x); err != nil {
		return fmt.Errorf("write machine %q by --format %q: %w", one.Name, format, err)
	}
	_, err = fmt.Fprintln(m.out)
	return err
}

// inspect looks at a machine; one that is broken is shown as far as it can be read.
func (m *machines) inspect(ctx context.Context, one *machine.Machine, used string) inspection {
	spec, dir := one.Spec, one.Dir
	x := inspection{
		ConfigVersion: 3, Name: one.Name, DriverName: spec.Driver, Spec: spec, Status: m.row(ctx, one, answerWait, used),
		Driver: inspectedDriver{
			MachineName: one.Name, SSHUser: "root", SSHKeyPath: dir.SSHKey(), StorePath: string(dir),
			CPU: spec.CPUs, Memory: spec.MemoryMiB, DiskSize: spec.DiskMiB,
		},
		HostOptions: inspectedOptions{
			Memory: spec.MemoryMiB, Disk: spec.DiskMiB,
			EngineOptions: inspectedEngine{
				ArbitraryFlags: spec.Engine.Options, Env: spec.Engine.Env, InsecureRegistry: spec.Engine.InsecureRegistries, Labels: spec.Engine.Labels,
				RegistryMirror: spec.Engine.RegistryMirrors, StorageDriver: spec.Engine.StorageDriver, TLSVerify: true,
			},
			AuthOptions: inspectedAuth{CertDir: dir.TLS(), StorePath: string(dir), ServerCertSANs: splitList(spec.Options["tls-san"])},
		},
	}
	auth := &x.HostOptions.AuthOptions
	auth.CaCertPath, auth.ClientCertPath, auth.ClientKeyPath = filepath.Join(dir.TLS(), "ca.pem"), filepath.Join(dir.TLS(), "cert.pem"), filepath.Join(dir.TLS(), "key.pem")
	if x.Status.State == "Running" || x.Status.Phase == string(machine.PhaseSuspended) {
		ctx, cancel := context.WithTimeout(ctx, answerWait)
		defer cancel()
		x.Agent, _ = one.Agent().Status(ctx) // what it has to say is shown if it answers
	}
	if x.Status.State == "Running" {
		x.Driver.IPAddress = publishedAt
		x.Driver.SSHPort = portOf(x.Status.SSH)
	}
	if x.Agent == nil || x.Agent.VMPID == 0 {
		x.Saved = one.SavedState()
	}
	return x
}
