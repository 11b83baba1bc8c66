// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import "strconv"

// FileEventKind is what happened to a file.
type FileEventKind uint8

// Kinds of file events.
const (
	// FileCreated: a name appeared, with whatever has it.
	FileCreated FileEventKind = iota + 1
	// FileModified: content or size changed.
	FileModified
	// FileClosed: a file that was open for writing was closed. Hosts that do not tell leave it to the guest to assume it after each FileModified.
	FileClosed
	// FileAttributes: mode, owner, times or extended attributes changed.
	FileAttributes
	// FileDeleted: a name is gone.
	FileDeleted
	// FileMoved: a name became another one, To, replacing what had it.
	FileMoved
	// FileRescan: names in a folder may have gone without an event of their own; what is known of it must be compared.
	FileRescan
)

var fileEventKinds = [...]string{"none", "created", "modified", "closed", "attributes", "deleted", "moved", "rescan"}

// String is for logs and tests.
func (k FileEventKind) String() string {
	if int(k) < len(fileEventKinds) {
		return fileEventKinds[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// FileEvent is a change of a shared folder that somebody made on the host.
type FileEvent struct {
	Kind FileEventKind `json:"kind"`
	// Path is below the share, slash-separated; "" is the shared folder itself.
	Path string `json:"path"`
	// To is the new path of what was moved.
	To string `json:"to,omitempty"`
	// Dir: it is a folder.
	Dir bool `json:"dir,omitempty"`
}

// String is for logs and tests.
func (e FileEvent) String() string {
	s := e.Kind.String() + " " + strconv.Quote(e.Path)
	if e.Kind == FileMoved {
		s += " to " + strconv.Quote(e.To)
	}
	if e.Dir {
		s += " (folder)"
	}
	return s
}
