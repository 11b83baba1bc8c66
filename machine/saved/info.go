// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// infoVersion is the version of state.json that this program writes and reads.
const infoVersion = 1

// Names in the folder of saved memory. Files of a state have names of their own, ending in fileSuffix.
const (
	infoName   = "state.json"
	lockName   = "lock"
	fileSuffix = ".mem"
)

// Fact is something that a state depends on.
type Fact struct {
	// Name says it in words that follow "another": image, QEMU, memory size.
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Disk tells one content of a file from all others, without reading it: the file system notes each change.
type Disk struct {
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds
	Changed  int64  `json:"changed,omitempty"`
	Inode    uint64 `json:"inode,omitempty"`
}

// IdentifyDisk looks at a disk that nobody writes to.
func IdentifyDisk(name string) (Disk, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Disk{}, fmt.Errorf("look at the disk: %w", err)
	}
	d := Disk{Size: info.Size(), Modified: info.ModTime().UnixNano()}
	d.inode(info)
	return d, nil
}

// last is when the disk was changed last.
func (d Disk) last() int64 { return max(d.Modified, d.Changed) }

// Info is what is known of a state: state.json. It is as secret as the memory.
type Info struct {
	Version int `json:"version"`
	// File is the state file's name in the folder, Size and Sum what tells it from another.
	File string `json:"file"`
	Size int64  `json:"size"`
	Sum  uint32 `json:"sum"`
	// Created is when the memory was saved.
	Created time.Time `json:"created"`
	// Suspended: containers run in it.
	Suspended bool `json:"suspended,omitempty"`
	// Shrunk: it was compressed, as far as it can be.
	Shrunk bool `json:"shrunk,omitempty"`
	// Facts have to be the same, and the disk too.
	Facts []Fact `json:"facts"`
	Disk  Disk   `json:"disk"`
	// Notes are the host agent's.
	Notes json.RawMessage `json:"notes,omitempty"`

	dir string
}

// Path is the state file.
func (i *Info) Path() string { return filepath.Join(i.dir, i.File) }

// Read reads what is known of the state in a folder; nil where there is none.
func Read(dir string) (*Info, error) {
	data, err := os.ReadFile(filepath.Join(dir, infoName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no state is the usual case
	}
	if err != nil {
		return nil, fmt.Errorf("read about the saved memory: %w", err)
	}
	var head struct {
		Version uint32 `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, &TornError{"what is known of it cannot be read"}
	}
	if head.Version != infoVersion {
		return nil, &VersionError{head.Version}
	}
	i := Info{dir: dir}
	if err := json.Unmarshal(data, &i); err != nil {
		return nil, &TornError{"what is known of it cannot be read"}
	}
	if i.File != filepath.Base(i.File) || !strings.HasSuffix(i.File, fileSuffix) {
		return nil, &TornError{"its file has an impossible name"}
	}
	return &i, nil
}

// Fits says why a state cannot be used for a disk where these facts hold; "" if it can. The facts may be some of those that it was saved with.
func (i *Info) Fits(disk string, facts []Fact) (why string) {
	if name := i.another(facts); name != "" {
		return "it was saved with another " + name
	}
	now, err := IdentifyDisk(disk)
	switch {
	case err != nil:
		return err.Error()
	case now != i.Disk:
		return "the disk was changed since it was saved"
	}
	return ""
}

// another names the first of the facts that is not as it was; "" if all are.
func (i *Info) another(facts []Fact) string {
	saved := map[string]string{}
	for _, f := range i.Facts {
		saved[f.Name] = f.Value
	}
	for _, f := range facts {
		if v, ok := saved[f.Name]; !ok || v != f.Value {
			return f.Name
		}
	}
	return ""
}

// whole says whether the state file is the one that was committed, without reading what is in it.
func (i *Info) whole() error {
	f, err := Open(i.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return &TornError{"its file is missing"}
	}
	if err != nil {
		return err
	}
	size, sum := f.identity()
	if err := f.Close(); err != nil {
		return err
	}
	if size != i.Size || sum != i.Sum {
		return &TornError{"its file is another one"}
	}
	return nil
}

// write makes i the state of its folder, durably.
func (i *Info) write() error {
	data, err := json.Marshal(i)
	if err == nil {
		err = atomicfile.Write(filepath.Join(i.dir, infoName), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write about the saved memory: %w", err)
	}
	return nil
}
