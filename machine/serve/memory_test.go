// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package serve

import (
	"io"
	"os"
	"testing"

	"github.com/seed71221737/dev/hostagent/daemon"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

// writeMemory writes a state as a driver does.
func writeMemory(t *testing.T, file string) {
	t.Helper()
	err := saved.Write(t.Context(), file, nil, 0, func(w io.Writer) error {
		_, err := io.WriteString(w, "devices")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func writeDisk(t *testing.T, m *machine.Machine, text string) {
	t.Helper()
	f, err := os.OpenFile(m.Dir.DataDisk(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 8192); err != nil {
		t.Fatal(err)
	}
}

// take expects a state, or none.
func take(t *testing.T, y daemon.Memory, want bool) daemon.Saved {
	t.Helper()
	s, err := y.Take(t.Context())
	if err != nil || (s.File != "") != want {
		t.Fatalf("Take: %+v, %v; want one: %v", s, err, want)
	}
	return s
}

// TestMemoryOfMachines: the first machine leaves a template for the second; what a machine saves later is its own, for one use.
func TestMemoryOfMachines(t *testing.T) {
	s, first := newMachine(t, nil)
	s.Agent = []string{s.Agent[0], "-test.run=^$"} // what would compress
	y, ok := newMemory(s, first, s.Logger).(*memory)
	if !ok {
		t.Fatal("the driver saves no memory")
	}
	if empty, err := saved.Empty(first.Dir.DataDisk()); err != nil || !empty {
		t.Skipf("this file system does not tell an empty disk from others: %v", err)
	}
	take(t, y, false)
	file, wanted := y.Template(t.Context())
	if !wanted {
		t.Fatal("no template is wanted of the first machine")
	}
	writeDisk(t, first, "pristine")
	writeMemory(t, file)
	if err := y.Paused(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := y.CommitTemplate(t.Context(), daemon.Saved{Notes: []byte(`"of nobody"`)}); err != nil {
		t.Fatal(err)
	}
	if _, again := y.Template(t.Context()); again {
		t.Error("a second template is wanted")
	}
	writeDisk(t, first, "the first machine's")

	spec := first.Spec
	second, err := s.Create(t.Context(), "second", spec, machine.CreateOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	y = newMemory(s, second, s.Logger).(*memory) //nolint:forcetypeassert // as above
	got := take(t, y, true)
	if !got.Template || string(got.Notes) != `"of nobody"` {
		t.Errorf("Take: %+v", got)
	}
	if err := y.Consume(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, len("pristine"))
	f, err := os.Open(second.Dir.DataDisk())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(disk, 8192); err != nil || string(disk) != "pristine" {
		t.Errorf("the second machine's disk has %q, %v", disk, err)
	}

	file, still, err := y.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	writeMemory(t, file)
	if err := still(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := y.Commit(t.Context(), daemon.Saved{Suspended: true, Notes: []byte(`"mine"`)}); err != nil {
		t.Fatal(err)
	}
	if st := second.Status(t.Context()); st.Phase != machine.PhaseSuspended {
		t.Errorf("the machine is %s", st.Phase)
	}
	y = newMemory(s, second, s.Logger).(*memory) //nolint:forcetypeassert // as above
	got = take(t, y, true)
	if got.Template || !got.Suspended || string(got.Notes) != `"mine"` {
		t.Errorf("Take: %+v", got)
	}
	if err := y.Consume(t.Context()); err != nil {
		t.Fatal(err)
	}
	take(t, y, false)
	if st := second.Status(t.Context()); st.Phase != machine.PhaseStopped {
		t.Errorf("the machine is %s", st.Phase)
	}
}
