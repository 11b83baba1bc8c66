// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var b bytes.Buffer
	sent := []Event{
		{Status: &Status{Steps: []Step{{ID: "a", Name: "[1/2] FROM x", Started: &now}}, Logs: []Log{{Step: "a", Data: []byte{0xff, '\n'}, At: now}}}},
		{Failure: &Failure{Text: "no", Source: "Dockerfile:2"}},
	}
	for _, e := range sent {
		if err := Write(&b, e); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString("and then")
	for _, want := range sent {
		var got Event
		if err := Read(&b, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if b.String() != "and then" {
		t.Errorf("read too much or too little: %q is left", b.String())
	}
}

func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":        {"", "EOF"},
		"half a length":  {"\x00\x00", "unexpected EOF"},
		"half a message": {"\x00\x00\x00\x05{", "unexpected EOF"},
		"no JSON":        {"\x00\x00\x00\x02{x", "invalid character"},
		"words":          {"Usage: something else entirely", "at most"},
	} {
		var e Event
		if err := Read(strings.NewReader(c.text), &e); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Read(strings.NewReader(""), &Event{}); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		_ = Read(bytes.NewReader(b), &e) // must not panic, and not take memory that was not sent
	})
}
