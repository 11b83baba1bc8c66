// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

// Entry is a name in a folder.
type Entry struct {
	Name string
	Attr Attr
}

// Listing is a folder's contents, or a part of them.
type Listing struct {
	// Path is relative to the folder that was asked for: "" is that folder itself.
	Path string
	// Folder are the folder's own attributes, as they were before it was read.
	Folder Attr
	// Part: further listings of the folder follow.
	Part    bool
	Entries []Entry
}

// Append appends the listing.
func (l *Listing) Append(b []byte) []byte {
	b = appendString(b, l.Path)
	b = l.Folder.Append(b)
	part := byte(0)
	if l.Part {
		part = 1
	}
	b = append(b, part)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Entries)))
	for i := range l.Entries {
		b = appendString(b, l.Entries[i].Name)
		b = l.Entries[i].Attr.Append(b)
	}
	return b
}

// ParseListings reads listings to the end of b.
func ParseListings(b []byte) ([]Listing, error) {
	var all []Listing
	d := decoder{b: b}
	for len(d.b) > 0 {
		l := Listing{Path: d.str(), Folder: d.attr(), Part: d.u8() == 1}
		n := int(d.u32())
		if d.bad || n > len(d.b)/(AttrSize+2) {
			return nil, ErrMalformed
		}
		l.Entries = make([]Entry, n)
		for i := range l.Entries {
			l.Entries[i] = Entry{Name: d.str(), Attr: d.attr()}
		}
		if d.bad {
			return nil, ErrMalformed
		}
		all = append(all, l)
	}
	return all, nil
}

// Statfs is what a file system says of its size, in blocks of Bsize bytes.
type Statfs struct {
	Bsize, Blocks, Free, Available, Files, FilesFree, NameLen uint64
}

// Append appends it.
func (s *Statfs) Append(b []byte) []byte {
	for _, v := range [...]uint64{s.Bsize, s.Blocks, s.Free, s.Available, s.Files, s.FilesFree, s.NameLen} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// ParseStatfs reads it.
func ParseStatfs(b []byte) (s Statfs, err error) {
	d := decoder{b: b}
	for _, p := range [...]*uint64{&s.Bsize, &s.Blocks, &s.Free, &s.Available, &s.Files, &s.FilesFree, &s.NameLen} {
		*p = d.u64()
	}
	if d.bad {
		return Statfs{}, ErrMalformed
	}
	return s, nil
}

// Kinds of a Push (Response.Value when ID is 0).
const (
	// PushInvalidate has Paths as Data: what is known of them and their folders is no longer true. An empty list: nothing is.
	PushInvalidate = 1
	// PushEvents belongs to who replays the host's file events.
	PushEvents = 2
)

// AppendPaths appends a list of paths.
func AppendPaths(b []byte, paths []string) []byte {
	for _, p := range paths {
		b = appendString(b, p)
	}
	return b
}

// ParsePaths reads a list of paths to the end of b.
func ParsePaths(b []byte) ([]string, error) {
	var all []string
	d := decoder{b: b}
	for len(d.b) > 0 {
		all = append(all, d.str())
	}
	if d.bad {
		return nil, ErrMalformed
	}
	return all, nil
}

// Hello is the guest's first message. Session stays the same for the life of the mount, over any number of connections. Seen is how many pushes it has had from a
// host that remembers it.
type Hello struct {
	Version uint32
	Session [16]byte
	Seen    uint64
}

// Welcome is the host's answer. Known says that it remembers the session, so that requests may be sent again.
type Welcome struct {
	Version uint32
	Known   bool
	Root    Attr
}

const (
	helloMark   = "DEVSHARE"
	welcomeMark = "DEVHOSTS"
	// HelloSize is the encoded length of a Hello in bytes.
	HelloSize = len(helloMark) + 4 + 16 + 8
	// WelcomeSize is the encoded length of a Welcome in bytes.
	WelcomeSize = len(welcomeMark) + 4 + 1 + AttrSize
)

// Append appends the greeting.
func (h *Hello) Append(b []byte) []byte {
	b = append(b, helloMark...)
	b = binary.LittleEndian.AppendUint32(b, h.Version)
	return binary.LittleEndian.AppendUint64(append(b, h.Session[:]...), h.Seen)
}

// ParseHello reads it.
func ParseHello(b []byte) (h Hello, err error) {
	d := decoder{b: b}
	if string(d.take(len(helloMark))) != helloMark {
		return h, ErrMalformed
	}
	h.Version = d.u32()
	copy(h.Session[:], d.take(16))
	h.Seen = d.u64()
	if d.bad || len(d.b) > 0 {
		return Hello{}, ErrMalformed
	}
	return h, nil
}

// Append appends the answer.
func (w *Welcome) Append(b []byte) []byte {
	b = append(b, welcomeMark...)
	b = binary.LittleEndian.AppendUint32(b, w.Version)
	known := byte(0)
	if w.Known {
		known = 1
	}
	return w.Root.Append(append(b, known))
}

// ParseWelcome reads it.
func ParseWelcome(b []byte) (w Welcome, err error) {
	d := decoder{b: b}
	if string(d.take(len(welcomeMark))) != welcomeMark {
		return w, ErrMalformed
	}
	w.Version, w.Known = d.u32(), d.u8() == 1
	w.Root = d.attr()
	if d.bad || len(d.b) > 0 {
		return Welcome{}, ErrMalformed
	}
	return w, nil
}
