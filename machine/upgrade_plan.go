// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"fmt"

	"github.com/seed71221737/dev/vmimage"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// maxTries is how often a new image is started by commands that find an upgrade interrupted: what brings the host down each time is not tried for ever.
const maxTries = 2

// UpgradePlan is what an upgrade would do.
type UpgradePlan struct {
	Machine string
	Old     ImageBrief
	New     ImageBrief
	// Runs says that the machine runs now: it is stopped, and runs again afterwards.
	Runs bool
	// Snapshot says that the disk is saved first; NoRoom why that is not possible.
	Snapshot bool
	NoRoom   error
	// Warnings are what speaks against the image and does not forbid it.
	Warnings []string
}

// ImageBrief is an image in a few words.
type ImageBrief struct {
	Digest string
	Kernel string
	Engine string
	// schema and oldest are the image's data layouts, protocol the version of the control protocol that it speaks.
	schema, oldest, protocol int
}

func briefOf(i vmimage.Image) ImageBrief {
	b := ImageBrief{Digest: i.Digest, schema: 1, oldest: 1}
	if i.Manifest != nil {
		b.Kernel, b.Engine, b.protocol = i.Manifest.Kernel, i.Manifest.Engine, i.Manifest.GuestProtocol
		b.schema, b.oldest = i.Manifest.DataLayout()
	}
	return b
}

// Same says that the machine has the image already.
func (p UpgradePlan) Same() bool { return p.Old.Digest == p.New.Digest }

// LayoutError says that an image is too old for a machine's data.
type LayoutError struct {
	Name, Image string
	Has, Needs  int // versions of the data disk's layout
	// Snapshot is the newest one that the image can use, "" if there is none.
	Snapshot string
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("give machine %q image %s: the machine's data has layout %d, which a newer image made, and this one knows layouts up to %d", e.Name, shortDigest(e.Image), e.Needs, e.Has)
}

// Hint names the next step.
func (e *LayoutError) Hint() string {
	if e.Snapshot == "" {
		return "use an image that is not older than the data"
	}
	return fmt.Sprintf("`dev machine snapshot restore %s %s` brings back the data, the settings and the image of that time", e.Name, e.Snapshot)
}

// checkUpgrade says why an image cannot be the machine's, and what speaks against it. needs is the lowest layout that images must know for the machine's data.
func checkUpgrade(name string, needs int, i ImageBrief) (warnings []string, err error) {
	if i.schema < needs {
		return nil, &LayoutError{Name: name, Image: i.Digest, Has: i.schema, Needs: needs}
	}
	if i.protocol < proto.MinVersion {
		return nil, fmt.Errorf("give machine %q image %s: it speaks control protocol %d and this dev speaks %d to %d: use a newer image, or the dev that came with it", name, shortDigest(i.Digest), i.protocol, proto.MinVersion, proto.Version)
	}
	if i.protocol > proto.Version {
		warnings = append(warnings, fmt.Sprintf("the image speaks control protocol %d, which is newer than this dev's %d: it is of a newer dev, and may not work with this one", i.protocol, proto.Version))
	}
	return warnings, nil
}

// resume says how a change that was interrupted goes on: which step is next, and what to tell about it. One that has not changed anything is given up.
func (j *journal) resume() (next step, giveUp bool, text string) {
	switch {
	case j.replaces() && j.Step == stepPrepare:
		return "", true, fmt.Sprintf("a %s was interrupted before it changed anything: it is given up", j.Kind)
	case j.replaces():
		return stepSwitch, false, fmt.Sprintf("a %s was interrupted: it is finished", j.Kind)
	case j.Step == stepPrepare:
		return "", true, "an upgrade was interrupted before it changed anything: it is given up"
	case j.Step == stepTry && j.Tries < maxTries:
		return stepTry, false, "an upgrade was interrupted: the new image is tried again"
	case j.Step == stepTry:
		return stepBack, false, fmt.Sprintf("an upgrade was interrupted %d times: the machine goes back to its old image", j.Tries)
	case j.Step == stepBack:
		return stepBack, false, "an upgrade was interrupted on its way back to the old image: it goes on"
	}
	return j.Step, false, "an upgrade was interrupted when all but its end was done: it is finished"
}

// wayBack is how an upgrade that failed gets the old image back. layout is what images must know for the data once the new image has had it.
type wayBack struct {
	// disk says that the snapshot's disk has to come back, because the old image cannot read what the new one made of it; stuck that there is none.
	disk, stuck bool
}

func chooseWayBack(old ImageBrief, layout int, snapshot string) wayBack {
	if old.schema >= layout {
		return wayBack{}
	}
	return wayBack{disk: snapshot != "", stuck: snapshot == ""}
}
