// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome is what came of a case: passed where Err is nil, not tried where it is [Missing].
type Outcome struct {
	Group, Name string
	Err         error
}

// Try runs a case in a new folder, which is removed afterwards.
func (c Case) Try(dir string) Outcome {
	o := Outcome{Group: c.Group, Name: c.Name}
	if o.Err = os.Mkdir(dir, 0o755); o.Err != nil {
		return o
	}
	o.Err = c.Run(dir)
	if err := os.RemoveAll(dir); err != nil {
		o.Err = errors.Join(o.Err, fmt.Errorf("clean up: %w", err))
	}
	return o
}

// reporter is a test.
type reporter interface {
	Skipf(format string, args ...any)
	Error(args ...any)
}

// Tell reports an outcome to a test.
func (o Outcome) Tell(t reporter) {
	var missing Missing
	switch {
	case errors.As(o.Err, &missing):
		t.Skipf("%v", missing)
	case o.Err != nil:
		t.Error(o.Err)
	}
}

// ScaleOf is what is asked for by a word: "all" for [Large], "vm" for [Emulated], otherwise [Usual].
func ScaleOf(word string) Scale {
	switch word {
	case "all":
		return Large
	case "vm":
		return Emulated
	}
	return Usual
}

// Record writes what held in a folder of a kind to a file.
func Record(path, way, how string, all []Outcome) error {
	var system unix.Utsname
	if err := unix.Uname(&system); err != nil {
		return err
	}
	r := Results{Way: way, How: how, Date: time.Now().UTC().Format(time.DateOnly), Kernel: version(unix.ByteSliceToString(system.Release[:])), Groups: map[string]Counts{}}
	for _, o := range all {
		r.add(o)
	}
	return r.write(path)
}

// version is the part of a kernel's release that says what it can do.
func version(release string) string {
	parts := strings.SplitN(release, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func (r *Results) add(o Outcome) {
	n := r.Groups[o.Group]
	var missing Missing
	switch {
	case errors.As(o.Err, &missing):
		n.NotTried++
		r.NotTried = append(r.NotTried, Finding{o.Group, o.Name, missing.Error()})
	case o.Err != nil:
		n.Failed++
		r.Failed = append(r.Failed, Finding{o.Group, o.Name, short([]byte(o.Err.Error()))})
	default:
		n.Passed++
	}
	r.Groups[o.Group] = n
}
