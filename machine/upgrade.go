// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed71221737/dev/machine/snapshots"
	"github.com/seed71221737/dev/vmimage"
)

// Container is a container that ran before an upgrade.
type Container struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Containers looks after the containers of a machine's engine in an upgrade. Endpoints are as in Status.
type Containers interface {
	// Running lists the containers that run.
	Running(ctx context.Context, endpoint string) ([]Container, error)
	// Resume starts those that do not run. Warnings tell of those that ended by themselves; the error is of what the engine does not do.
	Resume(ctx context.Context, endpoint string, list []Container) (warnings []string, err error)
}

// UpgradeOptions say to what a machine is upgraded, and how.
type UpgradeOptions struct {
	// Image is a tag, a digest or its beginning; empty: DefaultImage.
	Image string
	// Rollback takes the image before the last upgrade; an upgrade that was interrupted is taken back.
	Rollback bool
	// NoSnapshot goes on without saving the disk first.
	NoSnapshot bool
	// Patience is how long the machine may take, once its engine answers, to be well with the new image; 0: three minutes.
	Patience time.Duration
}

// UpgradeResult is what an upgrade did.
type UpgradeResult struct {
	Plan UpgradePlan
	// Changed says that the machine has another image now.
	Changed bool
	// Snapshot is the name of the one taken before, "" if there is none.
	Snapshot string
}

// UpgradeError says why a machine has its old image back.
type UpgradeError struct {
	Name, New, Old string
	Err            error
	// Kept is the snapshot with what the disk held when the upgrade failed, where the disk had to be brought back, too.
	Kept string
	// Back is why going back did not work out to its end.
	Back error
	// Stuck is why there is no way back: the machine keeps the new image.
	Stuck error
	// Snapshot is one that the old image can use, where there is no other way back; "" if there is none.
	Snapshot string
}

func (e *UpgradeError) Error() string {
	text := fmt.Sprintf("upgrade machine %q to image %s: %v", e.Name, shortDigest(e.New), e.Err)
	if e.Stuck != nil {
		return fmt.Sprintf("%s; the machine keeps the new image, as there is no way back to image %s: %v", text, shortDigest(e.Old), e.Stuck)
	}
	if e.Back != nil {
		return fmt.Sprintf("%s; going back to image %s failed, too: %v", text, shortDigest(e.Old), e.Back)
	}
	text += "; the machine has its old image back"
	if e.Kept != "" {
		text += fmt.Sprintf(", and its disk from before the upgrade: what was on it last is snapshot %q", e.Kept)
	}
	return text
}

func (e *UpgradeError) Unwrap() []error {
	list := []error{e.Err}
	for _, err := range []error{e.Back, e.Stuck} {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// Hint names the next step.
func (e *UpgradeError) Hint() string {
	if e.Stuck != nil {
		text := fmt.Sprintf("`dev machine start %s` tries the new image again, `dev machine logs --console %s` has what it said, `dev machine doctor %s` looks for what is wrong", e.Name, e.Name, e.Name)
		if e.Snapshot != "" {
			text += fmt.Sprintf("; `dev machine snapshot restore %s %s` brings back disk and image of that moment", e.Name, e.Snapshot)
		}
		return text
	}
	if e.Back != nil {
		return fmt.Sprintf("`dev machine start %s` tries again; `dev machine snapshot ls %s` lists what can be brought back", e.Name, e.Name)
	}
	return fmt.Sprintf("the machine works as before; `dev machine logs --console %s` has what the new image said", e.Name)
}

// PlanUpgrade says what Upgrade would do, or why it cannot. Nothing is changed.
func (m *Machine) PlanUpgrade(ctx context.Context, o UpgradeOptions) (UpgradePlan, error) {
	if len(m.Problems) > 0 {
		return UpgradePlan{}, errors.Join(m.Problems...)
	}
	name := o.Image
	if o.Rollback {
		if name = m.Spec.Previous; name == "" {
			return UpgradePlan{}, fmt.Errorf("roll machine %q back: it has not been upgraded", m.Name)
		}
	}
	if name == "" {
		name = DefaultImage
	}
	old := vmimage.Image{Digest: m.Spec.Image}
	if i, err := m.store.Images.Find(m.Spec.Image, m.Spec.Arch); err == nil {
		old = i
	}
	found, err := m.imageFor(name)
	if err != nil {
		return UpgradePlan{}, fmt.Errorf("upgrade machine %q: %w", m.Name, err)
	}
	p := UpgradePlan{Machine: m.Name, Old: briefOf(old), New: briefOf(found), Snapshot: !o.NoSnapshot}
	if p.Same() {
		return p, nil
	}
	next := m.Spec.clone()
	next.Image = found.Digest
	if err := m.store.accept(ctx, m.Name, m.store.Drivers[next.Driver], next); err != nil {
		return p, err
	}
	if p.Warnings, err = checkUpgrade(m.Name, max(m.Spec.DataOldest, 1), p.New); err != nil {
		return p, m.withSnapshot(err)
	}
	if _, err := vmimage.Verify(found.Dir); err != nil {
		return p, err
	}
	if p.Runs, err = m.agentRuns(ctx); err != nil {
		return p, err
	}
	p.Runs = p.Runs || m.isSuspended(ctx)
	if p.Snapshot {
		p.NoRoom = m.roomForSnapshot()
	}
	return p, nil
}

// imageFor finds an image that the machine can boot.
func (m *Machine) imageFor(name string) (vmimage.Image, error) {
	found, err := m.store.Images.Find(name, m.Spec.Arch)
	switch {
	case err != nil:
		return found, err
	case found.Problem != nil:
		return found, found.Problem
	case found.Manifest.Arch != m.Spec.Arch:
		return found, fmt.Errorf("image %q is for %q and the machine for %q", name, found.Manifest.Arch, m.Spec.Arch)
	}
	return found, nil
}

// withSnapshot adds to the refusal of an image which snapshot it could use.
func (m *Machine) withSnapshot(err error) error {
	var layout *LayoutError
	if !errors.As(err, &layout) {
		return err
	}
	list, listErr := m.Snapshots()
	if listErr != nil {
		return err
	}
	for _, snap := range list {
		spec, parseErr := ParseSpec(snap.Name, []byte(snap.Spec))
		if snap.Problem == nil && parseErr == nil && max(spec.DataOldest, 1) <= layout.Has {
			layout.Snapshot = snap.Name
		}
	}
	return err
}

// Upgrade moves the machine to another image. Its disk is saved first and stays. The new image has to prove itself: the machine starts with it, engine and
// guest are well, and the containers that ran run again; else the machine goes back to the old image by itself, and the error is an *UpgradeError. A machine
// that ran runs afterwards, one that was stopped is stopped. An upgrade that was interrupted is finished, or taken back, by the next command.
func (m *Machine) Upgrade(ctx context.Context, o UpgradeOptions, sink Sink) (r UpgradeResult, err error) {
	err = m.underLock(ctx, sink, func() error {
		taken, err := m.finishUpgrade(ctx, o.Rollback, false, sink)
		if r.Changed = taken && o.Rollback; err != nil || r.Changed {
			return err
		}
		if r.Plan, err = m.PlanUpgrade(ctx, o); err != nil || r.Plan.Same() {
			return err
		}
		if r.Plan.NoRoom != nil {
			return r.Plan.NoRoom
		}
		for _, w := range r.Plan.Warnings {
			sink.send(Event{Machine: m.Name, Warning: true, Text: w})
		}
		j := &journal{
			Kind: kindUpgrade, Step: stepPrepare, Began: time.Now().UTC(), Ran: r.Plan.Runs,
			Old: m.Spec.Image, New: r.Plan.New.Digest, OldOldest: m.Spec.DataOldest, OldPrevious: m.Spec.Previous,
			Patience: o.Patience,
		}
		err = m.beginUpgrade(ctx, j, r.Plan, sink)
		r.Snapshot = j.Snapshot
		if err == nil {
			err = m.carryOn(ctx, j, sink)
		}
		r.Changed = m.Spec.Image == j.New
		return err
	})
	return r, err
}

// beginUpgrade stops the machine and saves its disk. An error leaves the machine as it was.
func (m *Machine) beginUpgrade(ctx context.Context, j *journal, p UpgradePlan, sink Sink) error {
	if err := m.store.Images.Use(ctx, j.New, m.Name); err != nil {
		return fmt.Errorf("upgrade machine %q: %w", m.Name, err)
	}
	var err error
	if j.Ran { // one that is suspended is resumed: its containers are to run afterwards
		err = m.startLocked(ctx, sink)
		j.Ailing = m.ails(ctx)
	}
	if err == nil {
		err = m.noteContainers(ctx, j)
	}
	if err == nil {
		err = j.write(m.Dir)
	}
	if err == nil {
		err = m.rest(ctx, sink)
	}
	if err == nil && p.Snapshot {
		var snap snapshots.Snapshot
		snap, err = m.saveSnapshot(ctx, m.automaticName("before-upgrade"), "", reasonUpgrade, sink)
		j.Snapshot = snap.Name
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("upgrade machine %q: %w", m.Name, err)
	if ctx.Err() != nil {
		return err // the journal says the rest to the next command
	}
	err = errors.Join(err, m.sweepChange(""), endJournal(m.Dir), m.releaseOthers(ctx))
	if j.Ran {
		err = errors.Join(err, m.startLocked(ctx, sink))
	}
	return err
}

// noteContainers remembers which containers run.
func (m *Machine) noteContainers(ctx context.Context, j *journal) error {
	status := m.Status(ctx)
	if m.store.Containers == nil || !status.Phase.Up() {
		return nil
	}
	list, err := m.store.Containers.Running(ctx, status.Endpoint)
	if err != nil {
		return fmt.Errorf("list the containers that run: %w", err)
	}
	j.Containers = list
	return nil
}

// carryOn does an upgrade's steps from where it is to its end. It returns an *UpgradeError if the machine has its old image back. When ctx ends, the
// journal stays for the next command.
func (m *Machine) carryOn(ctx context.Context, j *journal, sink Sink) error {
	if j.Step == stepPrepare {
		j.Step = stepTry
	}
	if j.Step == stepTry {
		err := m.try(ctx, j, sink)
		if ctx.Err() != nil {
			return fmt.Errorf("upgrade machine %q: %w", m.Name, errors.Join(ctx.Err(), err))
		}
		if err == nil {
			j.Step = stepProven
		} else {
			return m.goBack(ctx, j, err, sink)
		}
	}
	if j.Step == stepBack {
		return m.goBack(ctx, j, errors.New(j.Why), sink)
	}
	if err := j.write(m.Dir); err != nil {
		return err
	}
	if !j.Ran {
		if err := m.stop(ctx, StopOptions{}, sink); err != nil {
			return err
		}
	}
	if err := errors.Join(endJournal(m.Dir), m.forgetOldest(j.Snapshot), m.releaseOthers(context.WithoutCancel(ctx))); err != nil {
		return fmt.Errorf("upgrade machine %q: %w", m.Name, err)
	}
	return nil
}

// try gives the machine the new image and sees whether it works.
func (m *Machine) try(ctx context.Context, j *journal, sink Sink) error {
	j.Tries++
	if err := j.write(m.Dir); err != nil {
		return err
	}
	oldest := 1
	if i, err := m.store.Images.Find(j.New, m.Spec.Arch); err == nil {
		oldest = briefOf(i).oldest
	}
	next := m.Spec.clone()
	next.Image, next.Previous = j.New, j.Old
	if oldest = max(oldest, j.OldOldest); oldest > 1 { // 1 goes without saying
		next.DataOldest = oldest
	}
	if err := m.swap(ctx, next); err != nil {
		return err
	}
	sink.say(m.Name, "starting the machine with image "+shortDigest(j.New))
	if err := m.startLocked(ctx, sink); err != nil {
		return err
	}
	return m.prove(ctx, j, sink)
}

// swap writes a spec with another image. What is used is noted before it is needed.
func (m *Machine) swap(ctx context.Context, next Spec) error {
	if err := m.store.Images.Use(ctx, next.Image, m.Name); err != nil {
		return err
	}
	if next.Image != m.Spec.Image {
		if err := m.forgetMemory(ctx, "the machine has another image"); err != nil {
			return err
		}
	}
	if err := writeSpec(m.Dir, next); err != nil {
		return err
	}
	m.Spec = next
	return nil
}

// goBack gives the machine its old image again, and the disk from before the upgrade where the old image cannot read what the new one made of it, or does
// not work with it.
func (m *Machine) goBack(ctx context.Context, j *journal, why error, sink Sink) error {
	failed := &UpgradeError{Name: m.Name, New: j.New, Old: j.Old, Err: why}
	if m.Spec.Image == j.New { // what the console says is overwritten by the next start
		failed.Err = m.withLines(why)
	}
	if stuck := m.noWayBack(j); stuck != nil {
		return m.stay(ctx, j, failed, stuck, sink)
	}
	j.Step, j.Why = stepBack, why.Error()
	if err := j.write(m.Dir); err != nil {
		return errors.Join(failed, err)
	}
	sink.send(Event{Machine: m.Name, Warning: true, Text: "the new image does not work: going back to image " + shortDigest(j.Old), Hint: why.Error()})
	failed.Kept, failed.Back = m.bringBack(ctx, j, sink)
	var damaged *snapshots.DamagedError
	if m.Spec.Image == j.New && j.Switch == nil && errors.As(failed.Back, &damaged) { // which only its reading showed
		failed.Back = nil
		return m.stay(ctx, j, failed, damaged, sink)
	}
	if failed.Back == nil || m.Spec.Image == j.Old && j.Switch == nil { // there is no way further back
		failed.Back = errors.Join(failed.Back, endJournal(m.Dir), m.releaseOthers(context.WithoutCancel(ctx)))
	}
	return failed
}

// noWayBack says why the old image can never be brought back, nil if it can be tried.
func (m *Machine) noWayBack(j *journal) error {
	if m.Spec.Image == j.Old || j.DiskBack {
		return nil // it is back
	}
	i, err := m.imageFor(j.Old)
	if err != nil {
		return err
	}
	way := chooseWayBack(briefOf(i), max(m.Spec.DataOldest, 1), j.Snapshot)
	switch {
	case way.stuck:
		return &LayoutError{Name: m.Name, Image: j.Old, Has: briefOf(i).schema, Needs: m.Spec.DataOldest}
	case way.disk:
		snap, err := m.Snapshot(j.Snapshot)
		return errors.Join(err, snap.Problem)
	}
	return nil
}

// stay ends an upgrade that came to nothing and cannot be taken back: the machine has the new image, and whoever starts it tries that. A machine that came
// up is left as it is, unless it did not run before.
func (m *Machine) stay(ctx context.Context, j *journal, failed *UpgradeError, stuck error, sink Sink) error {
	failed.Stuck, failed.Snapshot = stuck, m.snapshotFor(j)
	var err error
	if !j.Ran {
		err = m.stop(ctx, StopOptions{Cold: true}, sink)
	}
	return errors.Join(failed, err, endJournal(m.Dir), m.releaseOthers(context.WithoutCancel(ctx)))
}

// snapshotFor is the newest snapshot with which the image from before an upgrade works, "" if there is none.
func (m *Machine) snapshotFor(j *journal) string {
	i, err := m.imageFor(j.Old)
	if err != nil {
		return ""
	}
	var layout *LayoutError
	if err := m.withSnapshot(&LayoutError{Has: briefOf(i).schema}); errors.As(err, &layout) {
		return layout.Snapshot
	}
	return ""
}

// bringBack is goBack's work. kept is the snapshot with what was on the disk, if that was brought back, too.
func (m *Machine) bringBack(ctx context.Context, j *journal, sink Sink) (kept string, err error) {
	if err := m.kill(ctx); err != nil {
		return "", err
	}
	i, err := m.store.Images.Find(j.Old, m.Spec.Arch)
	if err != nil {
		return "", err
	}
	way := chooseWayBack(briefOf(i), max(m.Spec.DataOldest, 1), j.Snapshot)
	if way.disk && !j.DiskBack {
		if kept, err = m.bringDiskBack(ctx, j, sink); err != nil {
			return kept, err
		}
	}
	old := m.Spec.clone()
	old.Image, old.Previous, old.DataOldest = j.Old, j.OldPrevious, j.OldOldest
	if err := m.swap(ctx, old); err != nil || !j.Ran {
		return kept, err
	}
	err = m.startAndResume(ctx, j, sink)
	if err == nil || ctx.Err() != nil || j.Snapshot == "" || j.DiskBack {
		return kept, err
	}
	sink.send(Event{Machine: m.Name, Warning: true, Text: "the old image does not start either: bringing back the disk from before the upgrade"})
	if err := m.kill(ctx); err != nil {
		return kept, err
	}
	if kept, err = m.bringDiskBack(ctx, j, sink); err != nil {
		return kept, err
	}
	return kept, m.startAndResume(ctx, j, sink)
}

// bringDiskBack replaces the disk by the one saved before the upgrade.
func (m *Machine) bringDiskBack(ctx context.Context, j *journal, sink Sink) (kept string, err error) {
	snap, spec, err := m.restorable(ctx, j.Snapshot)
	if err != nil {
		return "", err
	}
	sink.say(m.Name, "bringing back the disk of snapshot "+j.Snapshot)
	kept = m.automaticName("after-failed-upgrade")
	if j.Switch, err = m.prepareSwitch(ctx, snap, spec, kept, reasonBack, sink); err != nil {
		return "", err
	}
	if err := j.write(m.Dir); err != nil {
		return "", err
	}
	return kept, m.endSwitch(ctx, j)
}

// endSwitch finishes an upgrade's replacement of the disk and notes that.
func (m *Machine) endSwitch(ctx context.Context, j *journal) error {
	if err := m.finishSwitch(ctx, j.Switch); err != nil {
		return err
	}
	j.Switch, j.DiskBack = nil, true
	return j.write(m.Dir)
}

// putRight finishes, under the machine's lock, what an interrupted command has decided and what needs no virtual machine; upgrades that are under way stay
// for finishUpgrade.
func (m *Machine) putRight(ctx context.Context, sink Sink) error {
	j, err := readJournal(m.Dir)
	if err != nil || j == nil {
		return err
	}
	if j.Switch != nil && j.Kind == kindUpgrade {
		if err := m.rest(ctx, sink); err != nil {
			return err
		}
		return m.endSwitch(ctx, j)
	}
	_, giveUp, text := j.resume()
	if !giveUp && j.Kind == kindUpgrade {
		return nil
	}
	sink.send(Event{Machine: m.Name, Warning: true, Text: text})
	if giveUp {
		err = m.sweepChange("")
	} else if err = m.rest(ctx, sink); err == nil {
		err = m.finishSwitch(ctx, j.Switch)
	}
	if err != nil {
		return err
	}
	return errors.Join(endJournal(m.Dir), m.releaseOthers(context.WithoutCancel(ctx)))
}

// settleUpgrade is finishUpgrade for a command that changes the disk, or all of the machine, whichever image it has by then.
func (m *Machine) settleUpgrade(ctx context.Context, sink Sink) error {
	_, err := m.finishUpgrade(ctx, false, false, sink)
	var failed *UpgradeError
	if errors.As(err, &failed) && ctx.Err() == nil {
		sink.send(Event{Machine: m.Name, Warning: true, Text: failed.Error()})
		return nil
	}
	return err
}

// finishUpgrade goes on with an upgrade that was interrupted, to its end: with the new image if it works, else with the old one. It says whether there was
// one. back takes it back in any case, up has the machine run afterwards.
func (m *Machine) finishUpgrade(ctx context.Context, back, up bool, sink Sink) (found bool, err error) {
	j, err := readJournal(m.Dir)
	if err != nil || j == nil || j.Kind != kindUpgrade {
		return false, err
	}
	next, _, text := j.resume()
	if back && next != stepBack {
		next, text = stepBack, "an upgrade was interrupted: it is taken back"
	}
	sink.send(Event{Machine: m.Name, Warning: true, Text: text})
	if next == stepBack && j.Why == "" {
		j.Why = "it was interrupted"
	}
	j.Step, j.Ran = next, j.Ran || up
	err = m.carryOn(ctx, j, sink)
	var failed *UpgradeError
	if errors.As(err, &failed) && failed.Stuck != nil && up {
		sink.send(Event{Machine: m.Name, Warning: true, Text: failed.Error(), Hint: failed.Hint()})
		return true, nil // there is one image that can be started
	}
	if errors.As(err, &failed) && failed.Back == nil && failed.Stuck == nil && (back || up) {
		return true, nil // the machine is as it was before the upgrade, which has been told
	}
	if err == nil {
		sink.say(m.Name, "the upgrade to image "+shortDigest(j.New)+" is finished")
	}
	return true, err
}

// releaseOthers takes back the use of images that nothing of the machine names: spec, snapshots and journal.
func (m *Machine) releaseOthers(ctx context.Context) error {
	used := map[string]bool{m.Spec.Image: true, m.Spec.Previous: true}
	list, err := m.Snapshots()
	if err != nil {
		return err
	}
	for _, snap := range list {
		if snap.Problem != nil {
			return nil //nolint:nilerr // it may need any of them
		}
		used[snap.Image] = true
	}
	j, err := readJournal(m.Dir)
	if err != nil {
		return err
	}
	if j != nil {
		used[j.Old], used[j.New] = true, true
	}
	return m.release(ctx, func(digest string) bool { return !used[digest] })
}

// release takes back the machine's use of the images that which says.
func (m *Machine) release(ctx context.Context, which func(digest string) bool) error {
	list, err := m.store.Images.List()
	if err != nil {
		return err
	}
	for _, image := range list {
		if slices.Contains(image.Users, m.Name) && which(image.Digest) {
			err = errors.Join(err, m.store.Images.Release(ctx, image.Digest, m.Name))
		}
	}
	return err
}
