// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A checkout that changes very many files does not drown the share: what the guest sees in the end is what the host has, a change after it is told, and
// little memory is used.
func TestEventsOfACheckout(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("it needs git")
	}
	files := 10_000
	if n, err := strconv.Atoi(os.Getenv("DEV_TEST_CHECKOUT")); err == nil {
		files = n // 50000 takes minutes on a busy computer
	}
	p := followed(t, nil)
	repository(t, p.folder, files)
	settled(t, p)
	before := checksum(t, p.target) // the guest knows every file
	w := watch(t, p.target, "", "d0", "d1")
	started := time.Now()
	git(t, p.folder, "checkout", "-q", "two")
	checked := time.Since(started)
	m := mark(t, p.folder)
	w.until(m)
	t.Logf("git checkout of %d files: %v, told after %v more", files, checked.Round(time.Millisecond), (time.Since(started) - checked).Round(time.Millisecond))
	if got, want := checksum(t, p.target), checksum(t, p.folder); got != want || got == before {
		t.Errorf("after the checkout the guest has %s, the host %s (before: %s)", got, want, before)
	}
	var longest time.Duration
	for range 20 {
		at := time.Now()
		w.until(mark(t, p.folder))
		longest = max(longest, time.Since(at))
	}
	t.Logf("afterwards an event takes at most %v", longest.Round(10*time.Microsecond))
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("both ends hold %d MiB", mem.HeapAlloc>>20)
	if mem.HeapAlloc > 512<<20 {
		t.Errorf("both ends hold %d MiB", mem.HeapAlloc>>20)
	}
}

// repository makes two branches that have no file in common, or files of other content.
func repository(t *testing.T, dir string, files int) {
	t.Helper()
	git(t, dir, "init", "-q", "-b", "one")
	git(t, dir, "config", "gc.auto", "0")
	for _, branch := range []string{"one", "two"} {
		if branch == "two" {
			git(t, dir, "checkout", "-q", "-b", "two")
		}
		for i := range files {
			sub := filepath.Join(dir, fmt.Sprintf("d%d", i%100))
			if i < 100 {
				if err := os.MkdirAll(sub, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), []byte(branch), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		git(t, dir, "add", "-A")
		git(t, dir, "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-m", branch)
	}
	git(t, dir, "checkout", "-q", "one")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
}

// checksum stands for the contents of all files outside of .git.
func checksum(t *testing.T, dir string) string {
	t.Helper()
	// The shell goes there: this process, which serves the folder, must not wait for it when it starts a program.
	cmd := exec.Command("sh", "-c", `cd "$0" && find . -path ./.git -prune -o -name 'mark*' -o -type f -print0 | sort -z | xargs -0 cat | cksum`, dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
