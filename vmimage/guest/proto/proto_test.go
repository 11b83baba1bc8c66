// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestSeedRoundTrip(t *testing.T) {
	want := Seed{Hostname: "web", MachineID: strings.Repeat("0a", 16), HostKey: "pem", AuthorizedKeys: []string{"k"}, Time: time.Unix(1e9, 0).UTC(),
		Sysctl: map[string]string{"vm.max_map_count": "1"}, Mounts: []Mount{{Source: "home", Target: "/Users/me", Type: "virtiofs"}}}
	disk, err := EncodeSeed(want)
	if err != nil {
		t.Fatal(err)
	}
	if len(disk)%seedRound != 0 {
		t.Errorf("the disk has %d bytes", len(disk))
	}
	got, err := DecodeSeed(bytes.NewReader(disk))
	if err != nil {
		t.Fatal(err)
	}
	want.Schema = SeedSchema
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		t.Errorf("got %s, want %s", b, a)
	}
	disk[len(seedMark)+4+32+3] ^= 1
	if _, err := DecodeSeed(bytes.NewReader(disk)); err == nil || errors.Is(err, ErrNoSeed) {
		t.Errorf("an altered seed: %v", err)
	}
	if _, err := DecodeSeed(bytes.NewReader(make([]byte, 4096))); !errors.Is(err, ErrNoSeed) {
		t.Errorf("a blank disk: %v, want ErrNoSeed", err)
	}
}

func TestSeedRefuses(t *testing.T) {
	for name, s := range map[string]Seed{
		"host name":  {Hostname: "a b"},
		"machine id": {MachineID: "xyz"},
		"sysctl":     {Sysctl: map[string]string{"../../etc/passwd": "1"}},
		"root mount": {Mounts: []Mount{{Source: "x", Target: "/", Type: "virtiofs"}}},
		"dot mount":  {Mounts: []Mount{{Source: "x", Target: "/a/../..", Type: "virtiofs"}}},
		"emulator":   {Emulators: map[string]string{"amd64": "/a:b"}},
		"mount type": {Mounts: []Mount{{Source: "x", Target: "/a", Type: "proc"}}},
	} {
		if _, err := EncodeSeed(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAgree(t *testing.T) {
	us := Hello{Version: 3, MinVersion: 2}
	if v, err := Agree(us, Hello{Version: 5, MinVersion: 1}); v != 3 || err != nil {
		t.Errorf("with a newer side that still speaks ours: %d, %v", v, err)
	}
	if v, err := Agree(us, Hello{Version: 2, MinVersion: 1}); v != 2 || err != nil {
		t.Errorf("with an older side that we still speak with: %d, %v", v, err)
	}
	for hint, them := range map[string]Hello{"the other side is too old": {Version: 1, MinVersion: 1}, "this side is too old": {Version: 9, MinVersion: 4}} {
		_, err := Agree(us, them)
		var v *VersionError
		if !errors.As(err, &v) || !strings.HasPrefix(v.Hint(), hint) {
			t.Errorf("with %+v: %v, want a hint %q", them, err, hint)
		}
	}
}

func TestClient(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		c := NewConn(theirs)
		if _, err := c.Greet(Hello{Version: 1, MinVersion: 1, Program: "guest"}); err != nil {
			t.Error(err)
		}
		var first, second Request
		if err := errors.Join(c.Receive(&first), c.Receive(&second)); err != nil {
			t.Error(err)
		}
		for _, r := range []Request{second, first} { // out of order
			if r.Method == MethodHealth {
				_ = c.Send(Response{ID: r.ID, Error: &Error{Code: CodeFailed, Text: "no luck"}})
			} else {
				_ = c.Send(Response{ID: r.ID, Result: json.RawMessage(`{"bytes":7}`)})
			}
		}
		theirs.Close()
	}()
	c, err := NewClient(ours, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	failed := make(chan error, 1)
	go func() { failed <- c.Call(context.Background(), MethodHealth, nil, nil) }()
	var trim Trim
	if err := c.Call(context.Background(), MethodTrim, nil, &trim); err != nil || trim.Bytes != 7 {
		t.Errorf("trim: %+v, %v", trim, err)
	}
	var e *Error
	if err := <-failed; !errors.As(err, &e) || e.Text != "no luck" {
		t.Errorf("health: %v", err)
	}
	if err := c.Call(context.Background(), MethodInfo, nil, nil); err == nil {
		t.Error("a call on an ended link succeeded")
	}
}

func FuzzDecodeSeed(f *testing.F) {
	disk, _ := EncodeSeed(Seed{Hostname: "a"})
	f.Add(disk[:512])
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSeed(bytes.NewReader(data))
		if err == nil && s.validate() != nil {
			t.Error("an invalid seed came through")
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"info"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		c := NewConn(bytes.NewBuffer(data))
		for c.Receive(&r) == nil {
		}
	})
}
