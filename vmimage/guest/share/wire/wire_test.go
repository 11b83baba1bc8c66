// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func sampleAttr(n uint64) Attr {
	return Attr{Ident: n, Ino: n + 1, Size: 5, Blocks: 8, Atime: -1, Mtime: 1 << 60, Ctime: 7, Mode: 0o100644, Nlink: 2, UID: 1000, GID: 20, Rdev: 3, Flags: Watched}
}

func sampleRequest() Request {
	return Request{
		ID: 9, Op: OpRename, Flags: FlagExchange, Valid: SetMode, UID: 1, GID: 2, OwnerUID: 3, OwnerGID: 4, Mode: 0o644, Ident: 5, Ident2: 6, Offset: 7,
		Offset2: 8, Size: 1 << 40, Atime: -5, Mtime: 6, Path: "a/b", Name: "new\nline", Path2: "\xff\xfe", Name2: "", Data: []byte("data"),
	}
}

func TestRoundTrips(t *testing.T) {
	request := sampleRequest()
	body, err := ReadFrame(bytes.NewReader(request.Append(nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRequest(body); err != nil || !reflect.DeepEqual(got, request) {
		t.Errorf("request %+v, %v; want %+v", got, err, request)
	}
	for _, response := range []Response{
		{ID: 3, Errno: 2, Data: []byte{}},
		{ID: 4, Value: 77, Attr: sampleAttr(1), Parent: sampleAttr(2), More: true, Data: []byte("rest")},
		{Value: PushInvalidate, Data: AppendPaths(nil, []string{"a", ""})},
	} {
		body, err := ReadFrame(bytes.NewReader(response.Append(nil)), make([]byte, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseResponse(body); err != nil || !reflect.DeepEqual(got, response) {
			t.Errorf("response %+v, %v; want %+v", got, err, response)
		}
	}
	listings := []Listing{
		{Folder: sampleAttr(3), Part: true, Entries: []Entry{{"x", sampleAttr(4)}, {strings.Repeat("n", MaxName), sampleAttr(5)}}},
		{Path: "x/y", Folder: sampleAttr(6), Entries: []Entry{}},
	}
	if got, err := ParseListings(listings[1].Append(listings[0].Append(nil))); err != nil || !reflect.DeepEqual(got, listings) {
		t.Errorf("listings %+v, %v", got, err)
	}
	hello, welcome := Hello{Version: 1, Session: [16]byte{1, 2}}, Welcome{Version: 1, Known: true, Root: sampleAttr(1)}
	if got, err := ParseHello(hello.Append(nil)); err != nil || got != hello || len(hello.Append(nil)) != HelloSize {
		t.Errorf("hello %+v, %v", got, err)
	}
	if got, err := ParseWelcome(welcome.Append(nil)); err != nil || got != welcome || len(welcome.Append(nil)) != WelcomeSize {
		t.Errorf("welcome %+v, %v", got, err)
	}
}

func TestReadFrame(t *testing.T) {
	request := sampleRequest()
	whole := request.Append(nil)
	if _, err := ReadFrame(bytes.NewReader(nil), nil); !errors.Is(err, io.EOF) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := ReadFrame(bytes.NewReader(whole[:len(whole)-1]), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a torn frame: %v", err)
	}
	if _, err := ReadFrame(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}), nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("a frame that is too large: %v", err)
	}
}

// FuzzParse: whatever comes, the parsers neither fail badly nor allocate more than what they were given warrants, and what they take they give back.
func FuzzParse(f *testing.F) {
	request := sampleRequest()
	f.Add(request.Append(nil)[4:])
	response := Response{ID: 4, Value: 77, Attr: sampleAttr(1), Parent: sampleAttr(2), Data: []byte("rest")}
	f.Add(response.Append(nil)[4:])
	listing := Listing{Path: "p", Folder: sampleAttr(1), Entries: []Entry{{"x", sampleAttr(4)}}}
	f.Add(listing.Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseRequest(data); err == nil {
			if again := r.Append(nil)[4:]; !bytes.Equal(again, data) {
				t.Errorf("request %x became %x", data, again)
			}
		}
		if r, err := ParseResponse(data); err == nil {
			if again, err := ParseResponse(r.Append(nil)[4:]); err != nil || again.ID != r.ID || !bytes.Equal(again.Data, r.Data) {
				t.Errorf("response %x: %+v, %v", data, again, err)
			}
		}
		if all, err := ParseListings(data); err == nil {
			var again []byte
			for i := range all {
				again = all[i].Append(again)
			}
			if _, err := ParseListings(again); err != nil {
				t.Errorf("listings %x: %v", data, err)
			}
		}
		_, _ = ParsePaths(data)
		_, _ = ParseStatfs(data)
		_, _ = ParseHello(data)
		_, _ = ParseWelcome(data)
	})
}
