// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// Styles are SGR parameters of ECMA-48.
const (
	bold    = "1"
	faint   = "2"
	reverse = "7"
	red     = "31"
	green   = "32"
	yellow  = "33"
)

// View implements tea.Model.
func (m *model) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	return v
}

// screen are the lines to show, as many as fit, none wider than the screen.
func (m *model) screen() []string {
	lines := []string{m.paint(bold, m.title) + "  " + m.paint(faint, fmt.Sprintf("%d services", len(m.services)))}
	if m.problem != "" {
		lines[0] += "  " + m.paint(red, m.problem)
	}
	most := max(3, m.height/2-3) // rows of services: the output gets the larger half
	lines = append(lines, m.table(most)...)
	footer := m.footer()
	room := m.height - len(lines) - len(footer)
	if m.asked != nil {
		lines = append(lines, m.question(room)...)
	} else {
		lines = append(lines, m.output(room)...)
	}
	for len(lines) < m.height-len(footer) {
		lines = append(lines, "")
	}
	lines = append(lines, footer...)
	lines = lines[max(0, len(lines)-max(1, m.height)):]
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "…")
	}
	return lines
}

// table are the services, with the selected one in view.
func (m *model) table(most int) []string {
	rows := Table(m.services)
	header, rows := rows[0], rows[1:]
	from := 0
	if i := m.index(); i >= most {
		from = i - most + 1
	}
	lines := []string{m.paint(faint, "  "+header)}
	for i := from; i < len(rows) && i < from+most; i++ {
		row := "  " + rows[i]
		switch s := m.services[i]; {
		case s.Name == m.selected:
			row = m.paint(reverse, "> "+pad(rows[i], m.width-2))
		case s.Health == "unhealthy" || strings.HasPrefix(s.State, "exited (") && s.State != "exited (0)":
			row = m.paint(red, row)
		case s.Health == "starting" || s.State == "restarting" || s.State == "paused":
			row = m.paint(yellow, row)
		case s.State == "running":
			row = m.paint(green, row)
		default:
			row = m.paint(faint, row)
		}
		lines = append(lines, row)
	}
	return lines
}

// output is the end of the selected service's output, or where it was scrolled to.
func (m *model) output(room int) []string {
	if room < 2 {
		return nil
	}
	head := "── " + m.selected
	if m.search != "" || m.typing {
		head += " /" + m.search
	}
	if m.scroll > 0 {
		head += fmt.Sprintf(" (%d lines below)", m.scroll)
	}
	lines := []string{m.paint(faint, head+" "+strings.Repeat("─", max(0, m.width-ansi.StringWidth(head)-1)))}
	found := m.matching()
	end := max(0, len(found)-m.scroll)
	return append(lines, found[max(0, end-room+1):end]...)
}

// question shows the plan that waits for an answer.
func (m *model) question(room int) []string {
	lines := []string{m.paint(bold, fmt.Sprintf("%s %s: this would be done", m.asked.action, m.asked.service))}
	steps := m.asked.plan.Steps
	for i, step := range steps {
		if len(lines) >= room-1 && i < len(steps)-1 {
			lines = append(lines, fmt.Sprintf("  … and %d more", len(steps)-i))
			break
		}
		lines = append(lines, "  "+plain(step))
	}
	return lines
}

func (m *model) footer() []string {
	help := "↑↓ select  r restart  s stop  a start  b rebuild  u up  e shell  / find  q quit"
	switch {
	case m.asked != nil:
		help = "y do it  n leave it"
	case m.typing:
		help = "type to search  enter keep  esc all lines"
	}
	return []string{m.paint(yellow, plain(m.status)), m.paint(faint, help)}
}

// paint puts text into a style.
func (m *model) paint(style, text string) string {
	if !m.color || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// Table lays services out in columns, a header first.
func Table(services []Service) []string {
	cells := [][]string{{"SERVICE", "STATE", "HEALTH", "CPU", "MEMORY", "PORTS"}}
	for _, s := range services {
		cells = append(cells, []string{s.Name, s.State, s.Health, s.CPU, s.Memory, s.Ports})
	}
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, cell := range row {
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	var lines []string
	for _, row := range cells {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(pad(cell, widths[i]+2))
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
}

// plain takes out of a line what would move the cursor or change colors.
func plain(line string) string {
	line = strings.ReplaceAll(ansi.Strip(line), "\t", "    ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, line)
}
