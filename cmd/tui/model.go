// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package tui

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
)

// mostLines bounds the output that is kept of the service that is shown.
const mostLines = 5000

// model is what is on the screen. All of it belongs to the program's loop; goroutines reach it by messages.
type model struct {
	ctx    context.Context
	source Source
	title  string
	color  bool
	tasks  *sync.WaitGroup

	width, height int
	services      []Service
	selected      string
	problem       string // of the last look at the services
	status        string // of the last action

	log      []string
	scroll   int // lines up from the end
	stopLogs context.CancelFunc
	lines    chan string

	typing bool // of the search
	search string

	asked   *question
	working bool
}

// question is a plan that waits for an answer.
type question struct {
	action  Action
	service string
	plan    Plan
}

// Messages to the model.
type (
	servicesMessage struct {
		services []Service
		err      error
	}
	tickMessage struct{}
	logMessage  struct {
		from  chan string
		lines []string
		ended bool
	}
	planMessage struct {
		question
		err error
	}
	doneMessage struct {
		what string
		err  error
	}
)

func newModel(ctx context.Context, source Source, title string, color bool, tasks *sync.WaitGroup) *model {
	return &model{ctx: ctx, source: source, title: title, color: color, tasks: tasks, width: 80, height: 24}
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return m.look }

// look observes the services.
func (m *model) look() tea.Msg {
	services, err := m.source.Services(m.ctx)
	return servicesMessage{services, err}
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg.String(), msg.Text)
	case servicesMessage:
		return m, m.took(msg)
	case tickMessage:
		return m, m.look
	case logMessage:
		return m, m.tookLines(msg)
	case planMessage:
		m.working = false
		switch {
		case msg.err != nil:
			m.status = string(msg.action) + " " + msg.service + ": " + msg.err.Error()
		case len(msg.plan.Steps) == 0:
			m.status = string(msg.action) + " " + msg.service + ": nothing to do"
		default:
			m.asked, m.status = &msg.question, ""
		}
	case doneMessage:
		m.working = false
		if m.status = msg.what + ": done"; msg.err != nil {
			m.status = msg.what + ": " + msg.err.Error()
		}
		return m, m.look
	}
	return m, nil
}

// took shows the services as they are now, and looks again in a while.
func (m *model) took(msg servicesMessage) tea.Cmd {
	next := tea.Tick(refresh, func(time.Time) tea.Msg { return tickMessage{} })
	if msg.err != nil {
		m.problem = msg.err.Error()
		return next
	}
	m.services, m.problem = msg.services, ""
	if m.index() < 0 && len(m.services) > 0 {
		return tea.Batch(next, m.show(m.services[0].Name))
	}
	return next
}

// index is the place of the selected service; -1 if it is not there.
func (m *model) index() int {
	return slices.IndexFunc(m.services, func(s Service) bool { return s.Name == m.selected })
}

// show selects a service and follows its output.
func (m *model) show(service string) tea.Cmd {
	if m.stopLogs != nil {
		m.stopLogs()
	}
	m.selected, m.log, m.scroll = service, nil, 0
	ctx, cancel := context.WithCancel(m.ctx)
	lines := make(chan string, 256)
	m.stopLogs, m.lines = cancel, lines
	m.tasks.Go(func() {
		defer close(lines)
		err := m.source.Logs(ctx, service, func(line string) {
			select {
			case lines <- line:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil {
			select {
			case lines <- "(" + err.Error() + ")":
			case <-ctx.Done():
			}
		}
	})
	return waitForLines(lines)
}

// waitForLines waits for output and takes all that is there.
func waitForLines(from chan string) tea.Cmd {
	return func() tea.Msg {
		line, ok := <-from
		if !ok {
			return logMessage{from: from, ended: true}
		}
		lines := []string{line}
		for len(lines) < cap(from) {
			select {
			case line, ok := <-from:
				if !ok {
					return logMessage{from: from, lines: lines, ended: true}
				}
				lines = append(lines, line)
			default:
				return logMessage{from: from, lines: lines}
			}
		}
		return logMessage{from: from, lines: lines}
	}
}

func (m *model) tookLines(msg logMessage) tea.Cmd {
	if msg.from != m.lines {
		return nil // of a service that is no longer shown
	}
	for _, line := range msg.lines {
		m.log = append(m.log, plain(line))
		if m.scroll > 0 {
			m.scroll++ // what is read stays where it is
		}
	}
	if extra := len(m.log) - mostLines; extra > 0 {
		m.log = slices.Clone(m.log[extra:])
	}
	if msg.ended {
		return nil
	}
	return waitForLines(msg.from)
}

// key acts on a key: while something is asked or typed, the answer counts.
func (m *model) key(key, text string) tea.Cmd {
	switch {
	case key == "ctrl+c":
		return tea.Quit
	case m.asked != nil:
		return m.answer(key)
	case m.typing:
		m.typeSearch(key, text)
		return nil
	}
	switch key {
	case "q":
		return tea.Quit
	case "up", "k":
		return m.move(-1)
	case "down", "j":
		return m.move(1)
	case "pgup":
		m.scroll = min(m.scroll+m.height/2, max(0, len(m.matching())-1))
	case "pgdown":
		m.scroll = max(0, m.scroll-m.height/2)
	case "end", "esc":
		m.scroll, m.search = 0, ""
	case "/":
		m.typing, m.search, m.scroll = true, "", 0
	case "e":
		return m.shell()
	}
	if action, ok := keys[key]; ok && !m.working && m.selected != "" {
		m.working, m.status = true, string(action)+" "+m.selected+" …"
		return m.plan(action, m.selected)
	}
	return nil
}

// keys are those that act on the selected service.
var keys = map[string]Action{"r": Restart, "s": Stop, "a": Start, "b": Rebuild, "u": Up}

func (m *model) move(by int) tea.Cmd {
	i := m.index() + by
	if i < 0 || i >= len(m.services) {
		return nil
	}
	return m.show(m.services[i].Name)
}

func (m *model) typeSearch(key, text string) {
	switch key {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.search = false, ""
	case "backspace":
		if runes := []rune(m.search); len(runes) > 0 {
			m.search = string(runes[:len(runes)-1])
		}
	default:
		m.search += text
	}
}

// matching are the lines that the search finds; all without one.
func (m *model) matching() []string {
	if m.search == "" {
		return m.log
	}
	wanted := strings.ToLower(m.search)
	var found []string
	for _, line := range m.log {
		if strings.Contains(strings.ToLower(line), wanted) {
			found = append(found, line)
		}
	}
	return found
}

func (m *model) plan(action Action, service string) tea.Cmd {
	return func() tea.Msg {
		plan, err := m.source.Plan(m.ctx, action, service)
		return planMessage{question{action, service, plan}, err}
	}
}

// answer carries the plan out that was asked about, or forgets it.
func (m *model) answer(key string) tea.Cmd {
	q := m.asked
	what := string(q.action) + " " + q.service
	switch key {
	case "y", "enter":
		m.asked, m.working, m.status = nil, true, what+" …"
		return func() tea.Msg { return doneMessage{what, q.plan.Do(m.ctx)} }
	case "n", "esc", "q":
		m.asked, m.status = nil, what+": left alone"
	}
	return nil
}

// shell leaves the screen to a shell in the service.
func (m *model) shell() tea.Cmd {
	if m.selected == "" {
		return nil
	}
	what := "shell in " + m.selected
	return tea.ExecProcess(m.source.Shell(m.selected), func(err error) tea.Msg { return doneMessage{what, err} })
}
