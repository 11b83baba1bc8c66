// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package wire is the protocol between a share's two ends: the guest, which has it mounted and asks, and the host, which has the folder and answers.
//
// After the greeting (Hello, Welcome) the guest sends requests and the host sends responses, each a frame: its length, then its fields in a fixed order,
// little endian. Requests carry a number that comes back with the response; any number may be under way, and responses come in any order, except that writes to
// one file are carried out in the order they were sent. Number 0 is the host's own word (Push). A request that was sent again after a broken connection has its old
// number: the host answers it from what it remembers, so that nothing is done twice.
//
// Files are named by their path below the share and, where the guest knows it, by their identity, which stays the same when a file is renamed and
// differs for another file of the same name. Errors are Linux's numbers, times are nanoseconds since 1970.
//
// The package has no I/O but framing and imports nothing of dev's: it runs on every host and in the guest.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version is the protocol's; both sides must have the same major part, which is all there is so far.
const Version = 1

// Bounds in bytes.
const (
	MaxFrame = 2 << 20 // of one frame
	MaxPath  = 64 << 10
	MaxName  = 255
	MaxData  = 1 << 20 // of one read or write
)

// Op is what a request asks for.
type Op uint8

// Operations. Those that have a name in a folder give the folder in Path and the name in Name.
const (
	OpLookup      Op = iota + 1 // Path, Name → Attr
	OpGetattr                   // Path, Ident → Attr
	OpSetattr                   // Path, Ident, Valid, Mode, UID/GID in Owner, Size, Atime, Mtime → Attr
	OpReadlink                  // Path → Data
	OpReaddir                   // Path, Flags → Data: listings; several responses, the last without More
	OpCreate                    // Path, Name, Mode, Flags, and what is to be in it: Data at Offset, and Valid's → Attr, Parent
	OpMknod                     // Path, Name, Mode, Size (device) → Attr, Parent
	OpMkdir                     // Path, Name, Mode → Attr, Parent
	OpSymlink                   // Path, Name, Data → Attr, Parent
	OpLink                      // Path2 (file), Ident, Path, Name → Attr, Parent
	OpUnlink                    // Path, Name, Ident (0: whatever it is) → Parent; the file stays usable by its identity until it is forgotten
	OpRmdir                     // Path, Name → Parent
	OpRename                    // Path, Name, Path2, Name2, Flags → Parent, Attr (the other folder)
	OpRead                      // Path, Ident, Offset, Size → Data
	OpWrite                     // Path, Ident, Offset, Flags, Data → Attr
	OpFsync                     // Path, Ident, Flags
	OpFallocate                 // Path, Ident, Offset, Size, Flags → Attr
	OpSeek                      // Path, Ident, Offset, Flags → Value
	OpCopy                      // Path, Ident, Offset, Path2, Ident2, Offset2, Size → Value, Attr
	OpStatfs                    // Path → Data: Statfs
	OpGetxattr                  // Path, Ident, Name → Data
	OpSetxattr                  // Path, Ident, Name, Data, Flags → Attr
	OpListxattr                 // Path, Ident → Data
	OpRemovexattr               // Path, Ident, Name → Attr
	OpTmpfile                   // Path, Mode → Attr: a file without a name
	OpForget                    // Path, Ident; no response
	OpPing                      // nothing → nothing
	OpEvents                    // Offset: number of the last batch that was replayed → Value: number of this one, Data: events, which may take long to come
	opEnd
)

// Mutates says that doing an operation twice is not the same as once.
func (o Op) Mutates() bool {
	switch o {
	case OpCreate, OpMknod, OpMkdir, OpSymlink, OpLink, OpUnlink, OpRmdir, OpRename, OpSetattr, OpWrite, OpFallocate, OpCopy, OpSetxattr, OpRemovexattr, OpTmpfile:
		return true
	}
	return false
}

// Bits of Request.Valid for OpSetattr.
const (
	SetMode = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
	KillSUID // take set-user-id and set-group-id away, as a write by who is not privileged does
)

// Bits of Request.Flags.
const (
	FlagExclusive = 1 << iota // OpCreate: the name must be free
	FlagAppend                // OpWrite: at the end of the file, wherever that is
	FlagKillSUID              // OpWrite
	FlagDataOnly              // OpFsync
	FlagSubtree               // OpReaddir: listings of sub-folders are welcome, too
	FlagTruncate              // OpCreate: an existing file is emptied
	FlagNoReplace             // OpRename
	FlagExchange              // OpRename
	FlagLink                  // OpLink: of a file without a name
	FlagAhead                 // OpCreate, OpUnlink: no program waits for the answer, which may come together with others; what is asked for in one folder is done in order
	FlagAgain                 // OpCreate: it may have been carried out; a file that is there must have the very contents, or the answer is EEXIST
)

// Request is one request. Fields that an operation does not use are zero.
type Request struct {
	ID       uint64
	Op       Op
	Flags    uint32
	Valid    uint32
	UID, GID uint32 // of the program in the guest
	OwnerUID uint32
	OwnerGID uint32
	Mode     uint32
	Ident    uint64
	Ident2   uint64
	Offset   uint64
	Offset2  uint64
	Size     uint64
	Atime    int64
	Mtime    int64
	Path     string
	Name     string
	Path2    string
	Name2    string
	Data     []byte
}

// Append appends the request as a frame.
func (r *Request) Append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, r.ID)
	b = append(b, byte(r.Op))
	for _, v := range [...]uint32{r.Flags, r.Valid, r.UID, r.GID, r.OwnerUID, r.OwnerGID, r.Mode} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{r.Ident, r.Ident2, r.Offset, r.Offset2, r.Size, uint64(r.Atime), uint64(r.Mtime)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, s := range [...]string{r.Path, r.Name, r.Path2, r.Name2} {
		b = appendString(b, s)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Data)))
	b = append(b, r.Data...)
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// Rdev is the device of an OpMknod.
func (r *Request) Rdev() uint32 {
	if r.Op == OpMknod {
		return uint32(r.Size)
	}
	return 0
}

// ErrMalformed says that a frame is not what the protocol allows.
var ErrMalformed = errors.New("a message of the share is malformed")

// ParseRequest reads a frame's body. Data points into it.
func ParseRequest(body []byte) (Request, error) {
	d := decoder{b: body}
	r := Request{ID: d.u64(), Op: Op(d.u8())}
	for _, p := range [...]*uint32{&r.Flags, &r.Valid, &r.UID, &r.GID, &r.OwnerUID, &r.OwnerGID, &r.Mode} {
		*p = d.u32()
	}
	for _, p := range [...]*uint64{&r.Ident, &r.Ident2, &r.Offset, &r.Offset2, &r.Size} {
		*p = d.u64()
	}
	r.Atime, r.Mtime = int64(d.u64()), int64(d.u64())
	for _, p := range [...]*string{&r.Path, &r.Name, &r.Path2, &r.Name2} {
		*p = d.str()
	}
	r.Data = d.bytes()
	if d.bad || len(d.b) > 0 || r.Op == 0 || r.Op >= opEnd || r.ID == 0 {
		return Request{}, ErrMalformed
	}
	return r, nil
}

// Bits of Attr.Flags.
const (
	// Watched: the host says so when it changes; it may be believed until then.
	Watched = 1 << iota
	// Roomy: the file system has far more room than the guest may have under way, so that it need not be waited for whether contents fit.
	Roomy
)

// Attr are a file's attributes.
type Attr struct {
	// Ident is the file's identity within the share, never 0.
	Ident               uint64
	Ino, Size, Blocks   uint64
	Atime, Mtime, Ctime int64
	Mode                uint32 // with Linux's type bits
	Nlink               uint32
	UID, GID            uint32
	Rdev                uint32
	Flags               uint32
}

// AttrSize is an encoded Attr's length in bytes.
const AttrSize = 8*7 + 4*6

// Append appends the attributes.
func (a *Attr) Append(b []byte) []byte {
	for _, v := range [...]uint64{a.Ident, a.Ino, a.Size, a.Blocks, uint64(a.Atime), uint64(a.Mtime), uint64(a.Ctime)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{a.Mode, a.Nlink, a.UID, a.GID, a.Rdev, a.Flags} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func (d *decoder) attr() (a Attr) {
	if len(d.b) < AttrSize {
		d.bad = true
		return a
	}
	a.Ident, a.Ino, a.Size, a.Blocks = d.u64(), d.u64(), d.u64(), d.u64()
	a.Atime, a.Mtime, a.Ctime = int64(d.u64()), int64(d.u64()), int64(d.u64())
	a.Mode, a.Nlink, a.UID, a.GID, a.Rdev, a.Flags = d.u32(), d.u32(), d.u32(), d.u32(), d.u32(), d.u32()
	return a
}

// Bits that say what a response has.
const (
	hasAttr = 1 << iota
	hasParent
	hasMore
)

// Response answers a request, or is a Push when ID is 0.
type Response struct {
	ID    uint64
	Errno uint16
	// Value is an offset or a length; for a Push its kind.
	Value uint64
	// Attr is the file's, Parent the folder's that was changed; an Ident of 0: it is not there.
	Attr, Parent Attr
	// More says that further responses to the request follow.
	More bool
	Data []byte
}

// Append appends the response as a frame.
func (r *Response) Append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, r.ID)
	b = binary.LittleEndian.AppendUint16(b, r.Errno)
	var bits byte
	if r.Attr.Ident != 0 {
		bits |= hasAttr
	}
	if r.Parent.Ident != 0 {
		bits |= hasParent
	}
	if r.More {
		bits |= hasMore
	}
	b = append(b, bits)
	b = binary.LittleEndian.AppendUint64(b, r.Value)
	if bits&hasAttr != 0 {
		b = r.Attr.Append(b)
	}
	if bits&hasParent != 0 {
		b = r.Parent.Append(b)
	}
	b = append(b, r.Data...)
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// ParseResponse reads a frame's body. Data points into it, and is all that follows the fields.
func ParseResponse(body []byte) (Response, error) {
	d := decoder{b: body}
	r := Response{ID: d.u64(), Errno: d.u16()}
	bits := d.u8()
	r.Value = d.u64()
	if bits&hasAttr != 0 {
		r.Attr = d.attr()
	}
	if bits&hasParent != 0 {
		r.Parent = d.attr()
	}
	r.More = bits&hasMore != 0
	r.Data = d.b
	if d.bad || bits >= hasMore<<1 {
		return Response{}, ErrMalformed
	}
	return r, nil
}

// ReadFrame reads a frame's body into buf, which grows as needed, and returns it.
func ReadFrame(r io.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, err
	}
	n := int(binary.LittleEndian.Uint32(head[:]))
	if n > MaxFrame {
		return buf, fmt.Errorf("%w: it has %d bytes", ErrMalformed, n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return buf, err
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

// decoder takes fields off the front of b; once it is bad, it stays so and gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if v := d.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) str() string { return string(d.take(int(d.u16()))) }

func (d *decoder) bytes() []byte { return d.take(int(d.u32())) }
