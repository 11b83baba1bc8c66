// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestOwnersFile: what is kept outlasts the process, what was dropped does not, and the file does not only grow.
func TestOwnersFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "owners")
	reopen := func(old *aside) *aside {
		t.Helper()
		if old != nil {
			if err := old.close(); err != nil {
				t.Fatal(err)
			}
		}
		a, err := openAside(name)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	lines := func() int {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(data, []byte("\n"))
	}
	a := reopen(nil)
	for i := range 100 {
		if err := a.put(uint64(i), owner{uid: uint32(i), mode: 0o100644}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 90 {
		a.drop(uint64(i))
	}
	a = reopen(a)
	if _, ok := a.get(3); ok || len(a.all) != 10 {
		t.Errorf("%d owners are left", len(a.all))
	}
	if o, ok := a.get(95); !ok || o.uid != 95 {
		t.Errorf("95 belongs to %v", o)
	}
	if n := lines(); n != 10 {
		t.Errorf("the file has %d lines", n)
	}
	// One file that changes hands all the time.
	for i := range 3 * staleLines {
		if err := a.put(95, owner{uid: uint32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := lines(); n > 2*staleLines {
		t.Errorf("the file has %d lines", n)
	}
	// A line that was cut off takes no other with it.
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, "%x 1:1", 95); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	a = reopen(nil)
	if err := a.put(96, owner{uid: 7}); err != nil {
		t.Fatal(err)
	}
	a = reopen(a)
	defer func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	if o, ok := a.get(95); !ok || o.uid != 3*staleLines-1 {
		t.Errorf("95 belongs to %v", o)
	}
	if o, ok := a.get(96); !ok || o.uid != 7 {
		t.Errorf("96 belongs to %v", o)
	}
}

// TestOwnersAreBounded: when there are too many, the oldest go, and no others.
func TestOwnersAreBounded(t *testing.T) {
	a, err := openAside("")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxAside + 1 {
		if err := a.put(uint64(i), owner{uid: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.all) > maxAside || len(a.all) < maxAside/2 {
		t.Errorf("%d are kept", len(a.all))
	}
	if _, ok := a.get(0); ok {
		t.Error("the oldest is kept")
	}
	if _, ok := a.get(maxAside / 2); !ok {
		t.Error("one that is not among the oldest is gone")
	}
}
