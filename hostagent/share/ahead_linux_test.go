// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// TestMadeAgain: a file that a forgotten request has made is taken for what it is, and one that somebody else has by now is left as it is.
func TestMadeAgain(t *testing.T) {
	dir := t.TempDir()
	tr, err := openTree(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name, there, asked string
		taken              bool
	}{
		{"same", "text", "text", true},
		{"empty", "", "", true},
		{"edited", "tezt", "text", false},
		{"longer", "text and more", "text", false},
		{"shorter", "te", "text", false},
		{"filled since", "text", "", false},
	} {
		if err := os.WriteFile(dir+"/"+c.name, []byte(c.there), 0o644); err != nil {
			t.Fatal(err)
		}
		r := &wire.Request{Op: wire.OpCreate, Name: c.name, Mode: 0o644, Flags: wire.FlagAhead | wire.FlagTruncate | wire.FlagAgain, Data: []byte(c.asked)}
		var res wire.Response
		err := tr.do(r, &res)
		if c.taken && (err != nil || res.Attr.Ident == 0) || !c.taken && !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(dir + "/" + c.name); err != nil || string(got) != c.there {
			t.Errorf("%s: the host has %q, %v", c.name, got, err)
		}
	}
	r := &wire.Request{Op: wire.OpCreate, Name: "gone", Mode: 0o644, Flags: wire.FlagAhead | wire.FlagAgain, Data: []byte("text")}
	if err := tr.do(r, new(wire.Response)); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(dir + "/gone"); err != nil || string(got) != "text" {
		t.Errorf("it was not made: %q, %v", got, err)
	}
}
