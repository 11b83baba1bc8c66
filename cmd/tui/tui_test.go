// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package tui

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// fakeSource is an application of made-up services.
type fakeSource struct {
	services []Service
	planErr  error
	steps    []string
	done     []string
}

func (f *fakeSource) Services(context.Context) ([]Service, error) { return f.services, nil }
func (f *fakeSource) Logs(ctx context.Context, service string, emit func(string)) error {
	emit("hello from " + service)
	<-ctx.Done()
	return nil
}
func (f *fakeSource) Plan(_ context.Context, action Action, service string) (Plan, error) {
	return Plan{Steps: f.steps, Do: func(context.Context) error {
		f.done = append(f.done, string(action)+" "+service)
		return nil
	}}, f.planErr
}
func (f *fakeSource) Shell(string) *exec.Cmd { return exec.Command("true") }

func newTest(t *testing.T, f *fakeSource) *model {
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	t.Cleanup(func() { cancel(); tasks.Wait() })
	m := newModel(ctx, f, "dev · shop", false, &tasks)
	m.Update(m.look())
	m.Update(waitForLines(m.lines)())
	return m
}

// press gives keys to the model, and carries out what comes of the last.
func press(m *model, keys ...string) {
	var cmd tea.Cmd
	for _, key := range keys {
		text := key
		if len(key) > 1 {
			text = ""
		}
		cmd = m.key(key, text)
	}
	if cmd != nil {
		m.Update(cmd())
	}
}

func shop() *fakeSource {
	return &fakeSource{steps: []string{"container shop-db-1  restart"}, services: []Service{
		{Name: "db", State: "running", Health: "healthy", Ports: "5432→5432", CPU: "1.0%", Memory: "30MB"}, {Name: "job", State: "exited (1)"}, {Name: "web", State: "none"},
	}}
}

func TestScreen(t *testing.T) {
	m := newTest(t, shop())
	text := strings.Join(m.screen(), "\n")
	for _, want := range []string{"dev · shop  3 services", "SERVICE  STATE       HEALTH   CPU   MEMORY  PORTS", "> db       running     healthy  1.0%  30MB    5432→5432", "  job      exited (1)", "── db ─", "hello from db", "q quit"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the screen:\n%s", want, text)
		}
	}
}

// TestFits: whatever the size and the content, the screen is as high as the terminal and no line is wider.
func TestFits(t *testing.T) {
	f := shop()
	for i := range 60 {
		f.services = append(f.services, Service{Name: fmt.Sprintf("service-with-a-long-name-%d", i), State: "running", Ports: strings.Repeat("8080→80 ", 20)})
	}
	m := newTest(t, f)
	for i := range 100 {
		m.log = append(m.log, plain(fmt.Sprintf("\x1b[31mline %d\x1b[0m\twide 漢字 %s", i, strings.Repeat("x", 200))))
	}
	m.color = true
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {10, 5}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for range 40 {
			m.move(1)
		}
		lines := m.screen()
		if len(lines) != size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if w := ansi.StringWidth(line); w > size[0] {
				t.Errorf("%v: %d wide: %q", size, w, line)
			}
		}
		if text := strings.Join(lines, "\n"); size[0] >= 40 && !strings.Contains(text, "> "+m.selected) {
			t.Errorf("%v: the selected service is not in view:\n%s", size, text)
		}
	}
}

func TestActionsAreAskedFirst(t *testing.T) {
	f := shop()
	m := newTest(t, f)
	press(m, "r")
	if text := strings.Join(m.screen(), "\n"); !strings.Contains(text, "restart db: this would be done") || !strings.Contains(text, "container shop-db-1  restart") || len(f.done) != 0 {
		t.Fatalf("done %v, screen\n%s", f.done, text)
	}
	press(m, "n")
	if m.asked != nil || len(f.done) != 0 || !strings.Contains(m.status, "left alone") {
		t.Errorf("after no: %v, %q", f.done, m.status)
	}
	press(m, "s")
	press(m, "y")
	if fmt.Sprint(f.done) != "[stop db]" || m.status != "stop db: done" {
		t.Errorf("after yes: %v, %q", f.done, m.status)
	}
	f.steps = nil
	press(m, "u")
	if m.asked != nil || m.status != "up db: nothing to do" {
		t.Errorf("an empty plan: %q", m.status)
	}
	f.planErr = errors.New("no such image")
	press(m, "b")
	if m.asked != nil || !strings.Contains(m.status, "no such image") {
		t.Errorf("a plan that fails: %q", m.status)
	}
}

func TestSearch(t *testing.T) {
	m := newTest(t, shop())
	m.log = []string{"GET /a", "POST /b", "get /c"}
	press(m, "/", "g", "e", "x", "backspace", "t")
	if got := m.matching(); fmt.Sprint(got) != "[GET /a get /c]" || !m.typing {
		t.Errorf("got %q", got)
	}
	press(m, "enter")
	if m.typing || len(m.matching()) != 2 {
		t.Error("the search was not kept")
	}
	press(m, "esc")
	if len(m.matching()) != 3 {
		t.Error("the search was not left")
	}
}

func TestSelectAnother(t *testing.T) {
	m := newTest(t, shop())
	old := m.lines
	press(m, "j")
	if m.selected != "job" || fmt.Sprint(m.log) != "[hello from job]" {
		t.Errorf("got %s, %q", m.selected, m.log)
	}
	if m.tookLines(logMessage{from: old, lines: []string{"late"}}); len(m.log) != 1 {
		t.Errorf("output of another service: %q", m.log)
	}
	press(m, "k")
	if m.selected != "db" {
		t.Errorf("got %s", m.selected)
	}
}

func TestPlain(t *testing.T) {
	if got := plain("\x1b[2J\x1b[31mred\x1b[0m\ttab\r\x07"); got != "red    tab" {
		t.Errorf("got %q", got)
	}
}
