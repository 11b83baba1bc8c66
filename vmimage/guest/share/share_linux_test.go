// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"os"
	"testing"
)

func TestFirst(t *testing.T) {
	p := mounted(t, nil)
	if err := os.WriteFile(p.guest("x"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(p.host("x"))
	if err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	got, err = os.ReadFile(p.guest("x"))
	if err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.MkdirAll(p.guest("a/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.guest("x"), p.guest("a/b/c/y")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(p.guest("a")); err != nil {
		t.Fatal(err)
	}
}
