// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/seed71221737/dev/machine/sparse"
)

// Usage is what a machine takes up on this host, in bytes.
type Usage struct {
	// DiskSize is what the data disk may grow to, Disk what it takes up.
	DiskSize int64 `json:"disk_size"`
	Disk     int64 `json:"disk"`
	// Memory is for saved memory, Snapshots for snapshots of the machine, and Logs for logs.
	Memory    int64 `json:"memory"`
	Snapshots int64 `json:"snapshots"`
	Logs      int64 `json:"logs"`
	// Unfinished is what an interrupted command left, and the next one removes.
	Unfinished int64 `json:"unfinished"`
	Other      int64 `json:"other"`
}

// Total is all of it.
func (u Usage) Total() int64 {
	return u.Disk + u.Memory + u.Snapshots + u.Logs + u.Unfinished + u.Other
}

// Usage counts what is in the machine's folder, whether it runs or not. What goes away meanwhile is not counted; a file with two names is counted
// with each of them.
func (m *Machine) Usage() (Usage, error) {
	u := Usage{DiskSize: int64(m.Spec.DiskMiB) << 20}
	err := filepath.WalkDir(string(m.Dir), func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = u.count(string(m.Dir), name)
		}
		if errors.Is(err, fs.ErrNotExist) && name != string(m.Dir) {
			return nil
		}
		return err
	})
	if err != nil {
		return u, fmt.Errorf("look at what machine %q takes up: %w", m.Name, err)
	}
	return u, nil
}

func (u *Usage) count(dir, name string) error {
	bytes, err := sparse.Allocated(name)
	if err != nil {
		return err
	}
	rest, err := filepath.Rel(dir, name)
	if err != nil {
		return err
	}
	*u.class(filepath.ToSlash(rest)) += bytes
	return nil
}

// class is where a file of the folder belongs, by its name.
func (u *Usage) class(name string) *int64 {
	top, _, _ := strings.Cut(name, "/")
	switch {
	case name == "data.img":
		return &u.Disk
	case top == "memory":
		return &u.Memory
	case top == "snapshots":
		return &u.Snapshots
	case isLog(name):
		return &u.Logs
	case isStale(name) || name == newDisk:
		return &u.Unfinished
	}
	return &u.Other
}

func isLog(name string) bool { return path.Ext(strings.TrimSuffix(name, ".1")) == ".log" }
