// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/doctor"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/internal/finding"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/autostart"
)

func newMachineDoctorCommand(m *machines) *cobra.Command {
	var o doctorOptions
	format := "text"
	c := &cobra.Command{
		Use:   "doctor [OPTIONS] [MACHINE...]",
		Short: "Find what is wrong with machines, and repair it",
		Long: `Looks at everything that can go wrong with machines on this computer: files, keys and
who may read them, processes without an owner, changes that were interrupted, saved
memory, snapshots, images, certificates, ports, the hypervisor, the guest's disk and
clock, room on this computer's disk, docker contexts, and what starts at login. It
works with machines in any state. Each finding has a cause and a fix; --fix shows what
it would do, asks, and does it. Data is never removed.

The exit status is 1 if something is broken, and 0 if at most there are warnings.`,
		Example: `  dev machine doctor
  dev machine doctor --fix box
  dev machine doctor --format json`,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			switch format {
			case "json":
				o.json = true
			case "text":
			default:
				return unknownFormat(format, "text", "json")
			}
			if o.fix && o.json {
				return usagef("--fix and JSON exclude each other")
			}
			return m.runMachineDoctor(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.fix, "fix", false, "repair what can be repaired, after showing what that does")
	f.BoolVarP(&o.yes, "yes", "y", false, "with --fix: do not ask")
	f.StringVarP(&format, "format", "f", format, "text or json")
	f.BoolVar(&o.json, "json", false, "the same as --format json")
	return c
}

func (m *machines) runMachineDoctor(ctx context.Context, o doctorOptions, names []string) error {
	checks, err := m.doctorChecks(names)
	if err != nil {
		return err
	}
	reports := finding.Run(ctx, checks)
	if err := m.showReports(reports, o.json); err != nil {
		return err
	}
	if o.fix {
		if err := m.repair(ctx, reports, o.yes); err != nil || m.dryRun {
			return err
		}
		if checks, err = m.doctorChecks(names); err != nil { // of the machines as they are now
			return err
		}
		reports = finding.Run(ctx, checks)
	}
	return worst(reports)
}

// doctorChecks are the checks of machines, each with the machine's name before its own, and those of what belongs to no machine.
func (m *machines) doctorChecks(names []string) ([]finding.Check, error) {
	s, err := m.store()
	if err != nil {
		return nil, err
	}
	list, err := m.named(names)
	if err != nil {
		return nil, err
	}
	host, err := m.thisHost()
	if err != nil {
		return nil, err
	}
	var checks []finding.Check
	for _, one := range list {
		for _, c := range append(one.Checks(), m.loginCheck(one)) {
			c.Name = one.Name + " " + c.Name
			checks = append(checks, c)
		}
	}
	if len(names) > 0 {
		return checks, nil
	}
	checks = append(checks, s.Checks()...)
	checks = append(checks, host.DiskCheck("disk", "free space for machines", []string{s.Dir, s.Images.Dir}))
	return append(checks,
		finding.Check{Name: "machine in use", About: "the machine that dev up uses", Run: func(context.Context) []finding.Finding { return m.findActive(s) }},
		finding.Check{Name: "docker contexts", About: "those that lead to machines", Run: func(context.Context) []finding.Finding { return m.findContexts(s, host) }},
	), nil
}

// findActive finds that the machine in use is gone.
func (m *machines) findActive(s *machine.Store) []finding.Finding {
	name, err := m.activeName()
	if err == nil && name == "" {
		return nil
	}
	if err == nil {
		_, err = s.Get(name)
	}
	if err == nil {
		return nil
	}
	return []finding.Finding{{
		Severity: finding.Broken, What: "the machine that dev up uses cannot be used", Cause: err.Error(), Fix: m.typed("use NAME") + ", or " + m.typed("use --none"),
		RepairText: "use no machine", Repair: func(context.Context) error { return m.setActive("") },
	}}
}

// findContexts finds docker contexts that lead to a machine of this store that is gone.
func (m *machines) findContexts(s *machine.Store, host doctor.Host) []finding.Finding {
	docker := endpoint.Docker{Dir: host.DockerDir}
	contexts, err := docker.Contexts()
	if err != nil {
		return []finding.Finding{{Severity: finding.Doubtful, What: "docker's contexts cannot be listed", Cause: err.Error(), Fix: "docker context ls"}}
	}
	var found []finding.Finding
	for _, e := range contexts {
		name, ours := strings.CutPrefix(e.Name, contextOf(""))
		if !ours || machine.CheckName(name) != nil || e.Host != endpoint.LocalHost(machine.Dir(filepath.Join(s.Dir, name)).Docker()) {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		found = append(found, finding.Finding{
			Severity: finding.Doubtful, What: fmt.Sprintf("docker context %q leads nowhere", e.Name), Cause: fmt.Sprintf("machine %q is gone", name), Fix: "docker context rm " + e.Name,
			RepairText: "remove docker context " + e.Name, Repair: func(context.Context) error { _, err := docker.RemoveContextNamed(e.Name, e.Host); return err },
		})
	}
	return found
}

// loginCheck looks whether what starts a machine at login still can.
func (m *machines) loginCheck(one *machine.Machine) finding.Check {
	return finding.Check{Name: "autostart", About: "what starts it at login", Run: func(context.Context) []finding.Finding {
		system, err := m.autostart()
		if err != nil {
			return nil // there is no home to keep it in
		}
		program, err := system.Program(one.Name)
		if err != nil || program == "" {
			return nil // it does not start at login, or the system does not tell
		}
		if _, err = os.Stat(program); err == nil {
			return nil
		}
		return []finding.Finding{{
			Severity: finding.Broken, What: "it does not start at login", Cause: err.Error(), Fix: m.typed("autostart on", one.Name),
			RepairText: "have this program start it at login", Repair: func(ctx context.Context) error { return m.renewAutostart(ctx, system, one.Name) },
		}}
	}}
}

func (m *machines) renewAutostart(ctx context.Context, system autostart.System, name string) error {
	entry, err := m.autostartEntry(name)
	if err != nil {
		return err
	}
	o, err := system.Enable(ctx, entry)
	if o.Note != "" {
		m.warn(o.Note)
	}
	return err
}
