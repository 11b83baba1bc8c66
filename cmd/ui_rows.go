// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// rows are what a tree shows: pure data, drawn by frame.
type rows struct {
	heading string
	order   []*row
	byID    map[string]*row
	// expected are the things that the plan touches, shown in the heading's count before they have a row.
	expected map[string]bool
}

// row is one thing and what happens to it.
type row struct {
	status
	started, ended time.Time
	parts          []*status
}

// expect counts a thing that will get a row.
func (r *rows) expect(id string) {
	if r.expected == nil {
		r.expected = map[string]bool{}
	}
	r.expected[id] = true
}

// set brings a row up to date, making it if it is new. A failure stays: what comes after it for the same thing does not hide it.
func (r *rows) set(s status, now time.Time) {
	if r.byID == nil {
		r.byID = map[string]*row{}
	}
	x := r.byID[s.ID]
	if x == nil {
		x = &row{started: now, status: status{ID: s.ID}}
		r.byID[s.ID] = x
		r.order = append(r.order, x)
	}
	if s.Part != "" {
		x.setPart(s)
		return
	}
	if x.State == rowFailed && !s.Again || x.State == rowWarning && s.State == rowDone && x.Text == "Skipped" {
		return
	}
	if s.Details == "" && s.State != rowFailed {
		s.Details = x.Details
	}
	x.status = s
	if s.State != rowWorking {
		x.ended = now
		x.parts = nil
	}
}

func (x *row) setPart(s status) {
	for _, p := range x.parts {
		if p.Part != s.Part {
			continue
		}
		p.Text = s.Text
		// Progress only goes up: an image's layers tell of download and unpacking in turn.
		p.Current, p.Total = max(p.Current, s.Current), max(p.Total, s.Total)
		return
	}
	x.parts = append(x.parts, &s)
}

// frameInput is what a frame depends on beside the rows.
type frameInput struct {
	now           time.Time
	width, height int
	// final draws all rows, as they stay on the screen.
	final bool
	style treeStyle
}

// frameLine is a line to draw, and the same without styles.
type frameLine struct{ styled, plain string }

// frame draws the rows within width and height: a heading, the rows, and how many did not fit.
func (r *rows) frame(in frameInput) []frameLine {
	if len(r.order) == 0 {
		return nil
	}
	shown, hidden := r.visible(in)
	lines := []frameLine{r.headingLine(in)}
	idWidth := 0
	for _, x := range shown {
		idWidth = max(idWidth, columns(x.ID))
	}
	idWidth = min(idWidth, max(12, in.width-24))
	for _, x := range shown {
		lines = append(lines, x.line(in, idWidth))
	}
	if hidden > 0 {
		text := cut(fmt.Sprintf("   … %d more", hidden), in.width-1)
		lines = append(lines, frameLine{in.style.paint(faint, text), text})
	}
	return lines
}

func (r *rows) headingLine(in frameInput) frameLine {
	done, total := 0, len(r.order)
	for _, x := range r.order {
		if x.State != rowWorking {
			done++
		}
	}
	for id := range r.expected {
		if r.byID[id] == nil {
			total++
		}
	}
	text := cut(fmt.Sprintf("[+] %s %d/%d", r.heading, done, total), in.width-1)
	return frameLine{text, text}
}

// visible picks the rows to draw when not all fit: those under way or failed first, then the latest finished, in their order.
func (r *rows) visible(in frameInput) (shown []*row, hidden int) {
	room := in.height - 2
	if in.final || len(r.order) <= room {
		return r.order, 0
	}
	room = max(1, room-1)
	keep := map[*row]bool{}
	for _, x := range r.order {
		if (x.State == rowWorking || x.State == rowFailed) && len(keep) < room {
			keep[x] = true
		}
	}
	for i := len(r.order) - 1; i >= 0 && len(keep) < room; i-- {
		keep[r.order[i]] = true
	}
	for _, x := range r.order {
		if keep[x] {
			shown = append(shown, x)
		}
	}
	return shown, len(r.order) - len(shown)
}

// line draws a row: mark, name, text, time, and in what room is left the bytes or the details.
func (x *row) line(in frameInput, idWidth int) frameLine {
	l := lineBuilder{room: in.width - 1, paint: in.style.paint}
	l.add(x.markStyle(), " "+x.mark(in)+" ")
	l.add("", pad(x.ID, idWidth))
	l.add(x.textStyle(), "  "+pad(x.Text, 9))
	l.add(blue, fmt.Sprintf(" %6.1fs", x.elapsed(in.now).Seconds()))
	if x.State == rowWorking && !in.final && len(x.parts) > 0 {
		l.add(green, "  "+x.bar(in.style))
	} else if x.Details != "" {
		l.add(faint, "  "+x.Details)
	}
	return frameLine{l.styled.String(), l.plain.String()}
}

func (x *row) mark(in frameInput) string {
	if x.State != rowWorking {
		return in.style.marks[x.State]
	}
	if in.final {
		return " "
	}
	frames := in.style.spinner
	return frames[int(in.now.Sub(x.started)/drawInterval)%len(frames)]
}

func (x *row) markStyle() string {
	return [...]string{rowWorking: cyan, rowDone: green, rowWarning: yellow, rowFailed: red}[x.State]
}

func (x *row) textStyle() string {
	if x.State == rowWorking {
		return ""
	}
	return x.markStyle()
}

// bar draws one sign for each part and the bytes of all, where they are known.
func (x *row) bar(style treeStyle) string {
	var b strings.Builder
	var current, total int64
	full := int64(len(style.bar) - 1)
	for _, p := range x.parts {
		level := int64(0)
		if p.Total > 0 {
			level = min(full, (full*p.Current+p.Total-1)/p.Total)
		}
		b.WriteString(style.bar[level])
		current, total = current+p.Current, total+p.Total
	}
	if total == 0 {
		return "[" + b.String() + "]"
	}
	return fmt.Sprintf("[%s] %s / %s", b.String(), units.HumanSize(float64(current)), units.HumanSize(float64(total)))
}

func (x *row) elapsed(now time.Time) time.Duration {
	if x.State != rowWorking {
		now = x.ended
	}
	return max(0, now.Sub(x.started))
}

// lineBuilder builds a line of at most room columns, with and without styles.
type lineBuilder struct {
	styled, plain strings.Builder
	room          int
	paint         paint
}

func (l *lineBuilder) add(style, text string) {
	text = cut(text, l.room)
	l.room -= columns(text)
	l.styled.WriteString(l.paint(style, text))
	l.plain.WriteString(text)
}

// columns is the width of text on a terminal. Names of services, images and the like are ASCII; wide letters can only come with errors.
func columns(text string) int { return utf8.RuneCountInString(text) }

// cut shortens text to width columns, marking that it did.
func cut(text string, width int) string {
	if width <= 0 {
		return ""
	}
	if columns(text) <= width {
		return text
	}
	r := []rune(text)
	return string(r[:width-1]) + "…"
}

// pad cuts or fills text to exactly width columns.
func pad(text string, width int) string {
	text = cut(text, width)
	return text + strings.Repeat(" ", width-columns(text))
}
