// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package projectcache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/seed71221737/dev/compose"
)

var _ compose.Cache = Cache{}

func TestKeeps(t *testing.T) {
	c := Cache{Dir: filepath.Join(t.TempDir(), "a", "b"), Version: "v1"}
	if got := c.Get("x"); got != nil {
		t.Errorf("nothing was put, but there is %q", got)
	}
	c.Put("x", []byte("old"))
	c.Put("x", []byte("new"))
	c.Put("big", make([]byte, maxBytes+1))
	if got := c.Get("x"); string(got) != "new" {
		t.Errorf("got %q", got)
	}
	files, err := os.ReadDir(c.Dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, want one: %v", len(files), err)
	}
	if info, err := files[0].Info(); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file is for everybody to read: %v, %v", info.Mode(), err)
	}
}

func TestKeepsWhatIsUsed(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	c.Put("used", []byte("u"))
	long := time.Now().Add(-7 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(c.Dir, "used"), long, long); err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(-time.Hour)
	for i := range most {
		name := fmt.Sprint(i)
		c.Put(name, []byte(name))
		if err := os.Chtimes(filepath.Join(c.Dir, name), hour, hour); err != nil {
			t.Fatal(err)
		}
		if i == 0 && !bytes.Equal(c.Get("used"), []byte("u")) {
			t.Fatal("gone at once")
		}
	}
	c.Put("last", []byte("l"))
	files, err := os.ReadDir(c.Dir)
	if err != nil || len(files) != most {
		t.Errorf("%d files, want %d: %v", len(files), most, err)
	}
	for _, name := range []string{"used", "last"} {
		if c.Get(name) == nil {
			t.Errorf("%q is gone", name)
		}
	}
}

func TestNowhereToKeep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := Cache{Dir: filepath.Join(file, "below")}
	c.Put("x", []byte("y"))
	if got := c.Get("x"); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestProgram(t *testing.T) {
	a, b := Cache{Version: "v1"}.Program(), Cache{Version: "v2"}.Program()
	if a == "" || a == b || a != (Cache{Version: "v1"}).Program() {
		t.Errorf("%q, %q", a, b)
	}
}

// TestProgramsOfSameSizeAndTime: another build is another program, also where its file has the same name, size and time.
func TestProgramsOfSameSizeAndTime(t *testing.T) {
	file, at := filepath.Join(t.TempDir(), "dev"), time.Unix(1_000_000, 0)
	var ids []string
	for _, build := range []string{"one", "two", "one"} {
		content := append(bytes.Repeat([]byte{0x7f}, 4000), "Go build ID: "+build...)
		if err := errors.Join(os.WriteFile(file, content, 0o755), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
		id, err := program(file)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if ids[0] == ids[1] || ids[0] != ids[2] {
		t.Errorf("%q", ids)
	}
	info := debug.BuildInfo{GoVersion: "go1", Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "false"}}}
	clean := builtFrom(&info)
	info.Settings[1].Value = "true"
	if changed := builtFrom(&info); changed == clean {
		t.Errorf("sources that were changed are %q as well", changed)
	}
}
