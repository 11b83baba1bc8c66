// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	// beginPatience is how long a machine may take to begin maintenance: what an older image boots into never does.
	beginPatience = 4 * time.Minute
	// maintainPatience bounds all of it: a disk may be large and the machine emulated.
	maintainPatience = 12 * time.Hour
	// reportPause is how often the report is looked at.
	reportPause = 50 * time.Millisecond
	// offPatience is how long a machine may take to power off when its work is done, or is not wanted any more.
	offPatience = 30 * time.Second
)

// maintenance is work on a data disk by the machine's own image, which boots for nothing else: without network, engine and containers.
type maintenance struct {
	task proto.Maintenance
	// disk is the disk to work on; original the one that it is a copy of, or empty. Nothing is written to that one.
	disk, original string
}

// OldImageError says that a machine's image does not know maintenance.
type OldImageError struct{ Name string }

func (e *OldImageError) Error() string {
	return fmt.Sprintf("look after the disk of machine %q: its image is too old for that", e.Name)
}

// Hint names the next step.
func (e *OldImageError) Hint() string {
	return fmt.Sprintf("upgrade it with `dev machine upgrade %s`", e.Name)
}

// maintain does maintenance on a machine that is stopped. The machine's lock is held. Meanwhile the run lock is, too, as for an agent.
func (m *Machine) maintain(ctx context.Context, w maintenance, sink Sink) (_ proto.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, maintainPatience)
	defer cancel()
	l := flock.New(m.Dir.RunLock())
	if ok, err := l.TryLock(); err != nil || !ok {
		return proto.Report{}, errors.Join(fmt.Errorf("look after the disk of machine %q: it is in use", m.Name), err)
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	defer m.removeStale()
	link, err := m.maintenanceLink(w)
	if err != nil {
		return proto.Report{}, err
	}
	driver := m.store.Drivers[m.Spec.Driver]
	if err := driver.Prepare(ctx, m.Dir, m.Spec); err != nil {
		return proto.Report{}, err
	}
	vm, err := driver.Start(ctx, m.Dir, m.Spec, link)
	if err != nil {
		return proto.Report{}, err
	}
	report, err := m.awaitReport(ctx, vm, sink)
	if end := EndVM(context.WithoutCancel(ctx), vm, offPatience); end != nil {
		err = errors.Join(err, end)
	}
	if err == nil {
		return report, nil
	}
	return report, fmt.Errorf("look after the disk of machine %q: %w", m.Name, err)
}

// maintenanceLink writes the seed and the report disk.
func (m *Machine) maintenanceLink(w maintenance) (hostagent.Link, error) {
	seed, err := proto.EncodeSeed(proto.Seed{Time: time.Now(), DataDisk: true, Maintenance: &w.task})
	if err != nil {
		return hostagent.Link{}, err
	}
	report, err := proto.EncodeReport(proto.Report{})
	if err != nil {
		return hostagent.Link{}, err
	}
	err = errors.Join(atomicfile.Write(m.Dir.Seed(), seed, 0o600), atomicfile.Write(m.Dir.report(), report, 0o600))
	if err != nil {
		return hostagent.Link{}, fmt.Errorf("look after the disk of machine %q: %w", m.Name, err)
	}
	link := hostagent.Link{Seed: m.Dir.Seed(), Console: m.Dir.Console(), Data: w.disk, Disks: []hostagent.Disk{{Name: "report", File: m.Dir.report()}}}
	if w.original != "" {
		link.Disks = append(link.Disks, hostagent.Disk{Name: proto.OriginalDisk, File: w.original, Discard: true})
	}
	return link, nil
}

// awaitReport tells the steps of the work until it is done, or has failed, or the VM has ended.
func (m *Machine) awaitReport(ctx context.Context, vm hostagent.VM, sink Sink) (report proto.Report, err error) {
	tick := time.NewTicker(reportPause)
	defer tick.Stop()
	begin := time.NewTimer(beginPatience)
	defer begin.Stop()
	for said := ""; ; {
		if now, err := m.readReport(); err == nil { // else it is just being written
			report = now
		}
		if report.Step != said {
			begin.Stop()
			said = report.Step
			sink.say(m.Name, said)
		}
		switch {
		case report.Error != "":
			return report, errors.New(report.Error)
		case report.Done:
			return report, nil
		}
		select {
		case <-tick.C:
		case <-begin.C:
			return report, &OldImageError{Name: m.Name}
		case <-ctx.Done():
			return report, ctx.Err()
		case <-vm.Done():
			return m.lastReport(vm)
		}
	}
}

// lastReport is what a VM has told that is off.
func (m *Machine) lastReport(vm hostagent.VM) (proto.Report, error) {
	report, err := m.readReport()
	switch {
	case err != nil:
		return report, err
	case report.Error != "":
		return report, errors.New(report.Error)
	case report.Done:
		return report, nil
	case vm.Err() != nil:
		return report, fmt.Errorf("the VM ended: %w", vm.Err())
	}
	return report, errors.New("the VM ended before the work was done")
}

func (m *Machine) readReport() (proto.Report, error) {
	f, err := os.Open(m.Dir.report())
	if err != nil {
		return proto.Report{}, fmt.Errorf("read report: %w", err)
	}
	defer f.Close()
	return proto.DecodeReport(f)
}
