// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	var b backoff
	var got []string
	for _, uptime := range []time.Duration{0, 0, time.Second, 0, 0, 0, 0, 0, 0, 0, 0, 0, time.Minute, 0} {
		got = append(got, b.next(uptime).String())
	}
	want := "100ms 200ms 400ms 800ms 1.6s 3.2s 6.4s 12.8s 25.6s 30s 30s 30s 100ms 200ms"
	if strings.Join(got, " ") != want {
		t.Errorf("delays %s\nwant   %s", got, want)
	}
}

func TestLogTail(t *testing.T) {
	log := Log{Path: filepath.Join(t.TempDir(), "x.log")}
	if got := log.Tail(3, 0); got != nil {
		t.Errorf("tail of no file = %q", got)
	}
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	if err := os.WriteFile(log.Path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	size := int64(text.Len())
	for _, tt := range []struct {
		n     int
		since int64
		want  []string
	}{
		{2, 0, []string{"line 4998", "line 4999"}},
		{3, size - 10, []string{"line 4999"}},
		{3, size, nil},
		{1, size + 100, []string{"line 4999"}}, // rotated meanwhile
	} {
		if got := log.Tail(tt.n, tt.since); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Tail(%d, %d) = %q, want %q", tt.n, tt.since, got, tt.want)
		}
	}
}

func TestLogRotate(t *testing.T) {
	log := Log{Path: filepath.Join(t.TempDir(), "x.log"), MaxSize: 10, Keep: 2}
	if err := log.Rotate(); err != nil {
		t.Errorf("rotate no file: %v", err)
	}
	f, err := log.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 4 {
		if _, err := fmt.Fprintf(f, "content %d\n", i); err != nil { // a writer that never reopens
			t.Fatal(err)
		}
		if err := log.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fmt.Fprint(f, "short\n"); err != nil {
		t.Fatal(err)
	}
	if err := log.Rotate(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range log.Files() {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, filepath.Base(name)+": "+string(data))
	}
	want := []string{"x.log.2: content 2\n", "x.log.1: content 3\n", "x.log: short\n"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("files %q\nwant  %q", got, want)
	}
}
