// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseDetachKeys(t *testing.T) {
	for text, want := range map[string]string{
		"ctrl-p,ctrl-q": "\x10\x11", "ctrl-@": "\x00", "ctrl-[,a": "\x1ba", "Ctrl-A": "\x01", "ctrl-_": "\x1f", "DEL": "\x7f", "x": "x",
	} {
		if got, err := parseDetachKeys(text); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "ctrl-", "ctrl-1", "hyper-x", "a,,b", "ctrl-pp"} {
		if got, err := parseDetachKeys(text); err == nil {
			t.Errorf("%s: got %q", text, got)
		}
	}
}

func TestDetachReader(t *testing.T) {
	tests := []struct {
		in, keys, out string
		detached      bool
	}{
		{"plain", "pq", "plain", false},
		{"abc", "pq", "abc", false},
		{"apqz", "pq", "a", true},
		{"ppq", "pq", "p", true},
		{"pxpq", "pq", "px", true},
		{"p", "pq", "p", false},
		{"", "pq", "", false},
		{"q", "q", "", true},
		{"aab", "aab", "", true},
	}
	for _, tt := range tests {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "data with error": iotest.DataErrReader} {
			got, err := io.ReadAll(&detachReader{r: wrap(strings.NewReader(tt.in)), keys: []byte(tt.keys)})
			if string(got) != tt.out || errors.Is(err, ErrDetached) != tt.detached {
				t.Errorf("%q for %q, %s: got %q, %v", tt.in, tt.keys, name, got, err)
			}
		}
	}
}

func FuzzDetachReader(f *testing.F) {
	f.Add("some text pq", "pq")
	f.Fuzz(func(t *testing.T, in, keys string) {
		if keys == "" {
			return
		}
		got, err := io.ReadAll(&detachReader{r: iotest.OneByteReader(strings.NewReader(in)), keys: []byte(keys)})
		if !strings.HasPrefix(in, string(got)) {
			t.Errorf("%q for %q: got %q", in, keys, got)
		}
		if !strings.Contains(in, keys) && (errors.Is(err, ErrDetached) || string(got) != in) {
			t.Errorf("%q for %q: got %q, %v", in, keys, got, err)
		}
	})
}
