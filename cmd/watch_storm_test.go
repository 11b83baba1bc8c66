// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// heard keeps what a program writes, to be read while it runs.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// until waits until something has come about.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	for end := time.Now().Add(8 * time.Minute); !come(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come about: " + what)
		}
	}
}

// TestWatchStorm has `dev watch` follow a folder in which 20,000 files appear, as a checkout makes them, and then all go: everything arrives, in few
// transfers.
func TestWatchStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 20,000 files")
	}
	files, folders := 20_000, 200
	if text := os.Getenv("DEV_TEST_STORM"); text != "" { // such as 100000: a checkout of a large repository
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		files, folders = n, n/100
	}
	p := newProject(t, "storm", `
services:
  web:
    image: busybox:test
    command: sleep infinity
    stop_grace_period: 0s
    develop: {watch: [{action: sync, path: src, target: /app}]}
`)
	src := filepath.Join(p.dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	var said heard
	w := p.command("watch")
	w.Stdout, w.Stderr = &said, &said
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Process.Kill(); _ = w.Wait() })
	until(t, "watching", func() bool { return strings.Contains(said.String(), "Watching for web: src") })

	for i := range files {
		dir := filepath.Join(src, fmt.Sprintf("d%03d", i%folders))
		if i < folders {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), fmt.Appendf(nil, "file %d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inside := func(script string) string { return p.dev(t, "exec", "-T", "web", "sh", "-c", script) }
	until(t, "all files arrive", func() bool { return inside("find /app -type f | wc -l") == fmt.Sprint(files) })
	until(t, "with their content", func() bool {
		return inside("find /app -type f -exec cat {} + | sort | uniq | wc -l") == fmt.Sprint(files)
	})
	if err := os.RemoveAll(src); err != nil {
		t.Fatal(err)
	}
	until(t, "all files go", func() bool { return inside("find /app -type f 2>/dev/null | wc -l") == "0" })

	transfers := len(regexp.MustCompile(`(?m)^web: .* synced$`).FindAllString(said.String(), -1))
	t.Logf("%d files came and went in %d transfers", files, transfers)
	// Usually fewer than ten. A slow machine makes pauses that look like the end of the storm.
	if most := files / 100; transfers > most {
		t.Errorf("%d transfers, want at most %d:\n%s", transfers, most, said.String())
	}
}
