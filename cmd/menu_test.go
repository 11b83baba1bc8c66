// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const menuProject = `
services:
  web:
    image: busybox:test
    command: sh -c 'echo hello; while true; do cat /app/said 2>/dev/null && rm /app/said; sleep 0.1; done'
    stop_grace_period: 0s
    develop:
      watch: [{action: sync, path: src, target: /app}]
`

// TestMenu goes through the keys of an attached up.
func TestMenu(t *testing.T) {
	p := newProject(t, "menu", menuProject)
	if err := os.Mkdir(filepath.Join(p.dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := p.inTerminal(t, "up", "--menu")
	before := s.state()
	s.expect(`web-1.*\|.*hello`)
	s.expect(`w: start watching   v: view services   o: view config   d: detach`)
	s.typeKeys("w")
	s.expect(`Watching for web: src`)
	s.expect(`w: stop watching`)
	if err := os.WriteFile(filepath.Join(p.dir, "src", "said"), []byte("said it\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.expect(`web: src/said synced`)
	s.expect(`web-1.*\|.*said it`)
	s.typeKeys("v")
	s.expect(`web-1 +Running`)
	s.typeKeys("o")
	s.expect(`develop:\r\n +watch:`)
	s.typeKeys("w")
	s.expect(`Watching has stopped`)
	s.typeKeys("d")
	if code := s.exit(before); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if left := p.dev(t, "ps", "--services"); left != "web" {
		t.Errorf("after the detaching %q runs, want web", left)
	}
}

// TestUpWatchStopsWithCtrlC follows files beside the output, and ends as any attached up does.
func TestUpWatchStopsWithCtrlC(t *testing.T) {
	p := newProject(t, "up-watch", menuProject)
	s := p.inTerminal(t, "up", "--watch")
	before := s.state()
	s.expect(`Watching for web: src`)
	if err := os.Mkdir(filepath.Join(p.dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "src", "said"), []byte("said it\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.expect(`web-1.*\|.*said it`)
	s.typeKeys("\x03")
	s.expect(`Gracefully Stopping`)
	if code := s.exit(before); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if left := p.dev(t, "ps", "-q"); left != "" {
		t.Errorf("still running: %s", left)
	}
}

func TestMenuStepsAside(t *testing.T) {
	var out bytes.Buffer
	m := &menu{out: &out, paint: func(_, text string) string { return text }}
	m.say("keys")
	m.above(func() { out.WriteString("line\n") })
	m.hide()
	m.above(func() { out.WriteString("below live rows\n") })
	m.reveal()
	m.close()
	m.say("never")
	want := "\r\x1b[Kkeys" + "\r\x1b[Kline\n\r\x1b[Kkeys" + "\r\x1b[K" + "below live rows\n" + "\r\x1b[Kkeys" + "\r\x1b[K"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	var none *menu
	none.say("")
	none.hide()
	none.reveal()
	none.close()
}
