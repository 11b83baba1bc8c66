// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/saved"
)

// Saver is a driver whose VMs' memory can be saved.
type Saver interface {
	// Fingerprint names what a saved memory of such a machine depends on besides its spec: the VMM, how it runs the processors, the board.
	Fingerprint(ctx context.Context, spec Spec) ([]saved.Fact, error)
}

// SpecFacts are the settings that a saved memory depends on. Others are told to a restored guest.
func SpecFacts(spec Spec) ([]saved.Fact, error) {
	engine, err := json.Marshal(spec.Engine)
	if err != nil {
		return nil, fmt.Errorf("describe the engine's settings: %w", err)
	}
	sum := sha256.Sum256(engine)
	return []saved.Fact{
		{Name: "image", Value: spec.Image},
		{Name: "driver", Value: spec.Driver},
		{Name: "number of processors", Value: strconv.Itoa(spec.CPUs)},
		{Name: "memory size", Value: strconv.Itoa(spec.MemoryMiB)},
		{Name: "engine configuration", Value: hex.EncodeToString(sum[:8])},
	}, nil
}

// MemoryFacts are all facts that a saved memory of the machine depends on now. The driver is no Saver: an error.
func (m *Machine) MemoryFacts(ctx context.Context) ([]saved.Fact, error) {
	facts, err := SpecFacts(m.Spec)
	if err != nil {
		return nil, err
	}
	s, ok := m.store.Drivers[m.Spec.Driver].(Saver)
	if !ok {
		return nil, fmt.Errorf("driver %q does not save memory", m.Spec.Driver)
	}
	more, err := s.Fingerprint(ctx, m.Spec)
	return append(facts, more...), err
}

// mostTemplates is how many templates are kept: a user has few kinds of machines.
const mostTemplates = 3

// Templates are states of machines without data, from which new machines start at once. They lie beside the images.
func (s *Store) Templates() *saved.Templates {
	return &saved.Templates{Dir: filepath.Join(s.Images.Dir, "templates"), Most: mostTemplates, Logger: s.Logger}
}

// TemplateFacts are the facts that a template has to have in common with the machine: those of its own memory, and what the disk was made with.
func (m *Machine) TemplateFacts(ctx context.Context) ([]saved.Fact, error) {
	facts, err := m.MemoryFacts(ctx)
	return append(facts, saved.Fact{Name: "disk size", Value: strconv.Itoa(m.Spec.DiskMiB)}), err
}

// DiskToGrow says whether the spec wants a larger disk than there is. A restored guest would not notice that it grew.
func (m *Machine) DiskToGrow() bool {
	info, err := os.Stat(m.Dir.DataDisk())
	return err == nil && info.Size() < int64(m.Spec.DiskMiB)<<20
}

// Saved is the memory that was saved of the machine and fits its disk and spec, as far as can be told without the driver; nil where there is none.
func (m *Machine) Saved() *saved.Info {
	state, err := saved.Read(m.Dir.Memory())
	if err != nil || state == nil || len(m.Problems) > 0 || m.DiskToGrow() {
		return nil
	}
	facts, err := SpecFacts(m.Spec)
	if err != nil || state.Fits(m.Dir.DataDisk(), facts) != "" {
		return nil
	}
	return state
}

// SavedState is what there is to know of a machine while its memory is saved, as it was noted then.
type SavedState struct {
	// At is when it was saved.
	At time.Time
	// Suspended says that its containers go on with it; otherwise they have been stopped.
	Suspended bool
	// Engine is the engine's version, "" where nobody noted it.
	Engine string
	// OnHost is how many bytes it takes up.
	OnHost int64
}

// SavedState is nil where there is no saved memory that fits.
func (m *Machine) SavedState() *SavedState {
	info := m.Saved()
	if info == nil {
		return nil
	}
	var noted struct {
		Engine string `json:"engine"`
	}
	_ = json.Unmarshal(info.Notes, &noted) // it is the host agent's, which may have noted nothing
	return &SavedState{At: info.Created, Suspended: info.Suspended, Engine: hostagent.Printable(noted.Engine), OnHost: saved.OnHost(m.Dir.Memory())}
}

// ShrinkFlag makes a host agent's command line one that compresses the machine's saved memory, and ends.
const ShrinkFlag = "shrink"

// ShrinkLater has the machine's saved memory compressed by a process of its own, which gives way to everybody and outlives this one.
func (m *Machine) ShrinkLater() error {
	command := append(slices.Clone(m.store.Agent), "--"+ShrinkFlag, m.Name)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.SysProcAttr = string(m.Dir), background()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("compress the saved memory of machine %q: %w", m.Name, err)
	}
	giveWay(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // ends with that process, or with this one
	return nil
}
