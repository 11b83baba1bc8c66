// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed71221737/dev/vmimage"
)

// otherImage is an image that differs from the lab's: by what it calls its kernel, and, if it is broken, by a kernel that does not boot.
func (l *lab) otherImage(t *testing.T, name string, broken bool) (dir string) {
	t.Helper()
	from := machineImage(t)
	manifest, err := vmimage.Verify(from)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	manifest.Kernel, manifest.Disk = name, nil
	if broken {
		kernel := bytes.Repeat([]byte("no kernel "), 100)
		sum := sha256.Sum256(kernel)
		if err := os.WriteFile(filepath.Join(dir, vmimage.KernelName), kernel, 0o600); err != nil {
			t.Fatal(err)
		}
		for i, f := range manifest.Files {
			if f.Name == vmimage.KernelName {
				manifest.Files[i] = vmimage.ImageFile{Name: f.Name, Size: int64(len(kernel)), SHA256: hex.EncodeToString(sum[:])}
			}
		}
	}
	data, err := json.Marshal(manifest)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, vmimage.ManifestName), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// step is what the machine's journal says, "" if there is none.
func (l *lab) step() string {
	var journal struct {
		Step string `json:"step"`
	}
	data, err := os.ReadFile(l.file("journal.json"))
	if err != nil || json.Unmarshal(data, &journal) != nil {
		return ""
	}
	return journal.Step
}

// killAtUpgrade kills something at each step of the journal of an upgrade. The last steps are those of an image that does not boot, and of a machine that was
// stopped before, which is stopped again.
func killAtUpgrade(victim string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		proof := l.sleeper(t)
		for _, step := range []string{"prepare", "try", "back", "proven"} {
			words, image := fmt.Sprintf("before-upgrade-%s-%s", step, victim), l.otherImage(t, "for-"+step, step == "back")
			l.write(t, words)
			if step == "proven" {
				l.dev(t, "machine", "stop", "--cold", "box")
			}
			if !l.killWhen(t, victim, func(string) bool { return l.step() == step }, "machine", "upgrade", "--image", image, "box") {
				t.Errorf("an upgrade had no step %q", step)
			}
			l.whole(t, words)
			l.noJournal(t)
			proof()
		}
		if out, err := l.try(t, "machine", "upgrade", "--rollback", "box"); err != nil && !strings.Contains(out, "has not been upgraded") {
			t.Errorf("the way back: %v\n%s", err, out)
		}
		l.whole(t)
		l.noJournal(t)
		l.forgetSnapshots(t)
	}
}

// forgetSnapshots removes all snapshots, which must be listed as whole.
func (l *lab) forgetSnapshots(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(l.dev(t, "machine", "snapshot", "ls", "-q", "box")) {
		name := strings.TrimSpace(line)
		l.dev(t, "machine", "snapshot", "verify", "box", name)
		l.dev(t, "machine", "snapshot", "rm", "box", name)
	}
}
