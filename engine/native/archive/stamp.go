// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// stampName is the file that records how the files looked when they had just
// been verified.
const stampName = ".stamp.json"

// stamp maps a file's path to how it looked.
type stamp map[string]fileStamp

type fileStamp struct {
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // nanoseconds since 1970
	Mode  uint32 `json:"mode"`
}

func look(name string) (fileStamp, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return fileStamp{}, err
	}
	if !info.Mode().IsRegular() {
		return fileStamp{}, errors.New("not a regular file")
	}
	return fileStamp{Size: info.Size(), Mtime: info.ModTime().UnixNano(), Mode: uint32(info.Mode())}, nil
}

func writeStamp(dir string, m Manifest) error {
	s := stamp{}
	for _, f := range m.Files {
		st, err := look(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil {
			return err
		}
		s[f.Path] = st
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(dir, stampName), data)
}

// Check says whether dir still holds what was unpacked into it. It compares
// size, modification time and mode of every file with the stamp and reads no
// file's content: cheap enough for every start.
func Check(dir string) (Manifest, error) {
	m, err := check(dir)
	if err != nil {
		return Manifest{}, &DamagedError{Name: dir, Err: err}
	}
	return m, nil
}

func check(dir string) (Manifest, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(raw)
	if err != nil {
		return Manifest{}, err
	}
	data, err := os.ReadFile(filepath.Join(dir, stampName))
	if err != nil {
		return Manifest{}, err
	}
	var s stamp
	if err := json.Unmarshal(data, &s); err != nil {
		return Manifest{}, fmt.Errorf("parse %s: %w", stampName, err)
	}
	for _, f := range m.Files {
		got, err := look(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil {
			return Manifest{}, fmt.Errorf("file %q: %w", f.Path, err)
		}
		if want, ok := s[f.Path]; !ok || got != want || got.Size != f.Size {
			return Manifest{}, fmt.Errorf("file %q was altered", f.Path)
		}
	}
	return m, nil
}
