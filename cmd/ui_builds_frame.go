// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"strings"
	"time"
)

// active reports whether builds have something to show on a live terminal.
func (b *builds) active() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.running) > 0 && len(b.steps) > 0
}

// finish returns the last frame of the builds, as it stays on the screen, and forgets them. It is empty if there is nothing to show.
func (b *builds) finish(in frameInput) []frameLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.steps) == 0 {
		return nil
	}
	in.final = true
	lines := b.frameLocked(in)
	b.steps, b.byID = nil, map[string]*buildStep{}
	return lines
}

// frame draws the builds within width and height: a heading, their steps, and under a running step its transfers and the end of its output.
func (b *builds) frame(in frameInput) []frameLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.frameLocked(in)
}

func (b *builds) frameLocked(in frameInput) []frameLine {
	done := 0
	for _, x := range b.steps {
		if x.done() {
			done++
		}
	}
	head := fmt.Sprintf("[+] Building %.1fs (%d/%d)", max(0, in.now.Sub(b.began).Seconds()), done, len(b.byID))
	if in.final && done == len(b.byID) {
		head += " FINISHED"
	}
	head = cut(head, in.width-1)
	lines := []frameLine{{head, head}}
	shown, hidden := b.visible(in)
	if hidden > 0 {
		text := cut(fmt.Sprintf(" … %d more", hidden), in.width-1)
		lines = append(lines, frameLine{in.style.paint(faint, text), text})
	}
	room := in.height - 2 - len(lines) - len(shown) // for what stands under steps
	for _, x := range shown {
		lines = append(lines, x.frameLine(in))
		more := x.below(in)
		if !in.final {
			more = more[max(0, len(more)-max(0, room)):]
			room -= len(more)
		}
		lines = append(lines, more...)
	}
	return lines
}

// visible picks the steps to draw when not all fit: those that run or failed first, then the latest, in their order.
func (b *builds) visible(in frameInput) (shown []*buildStep, hidden int) {
	room := in.height - 3
	if in.final || len(b.steps) <= room {
		return b.steps, 0
	}
	room = max(1, room-1)
	keep := map[*buildStep]bool{}
	for _, x := range b.steps {
		if (x.runs() || x.failed != "") && len(keep) < room {
			keep[x] = true
		}
	}
	for i := len(b.steps) - 1; i >= 0 && len(keep) < room; i-- {
		keep[b.steps[i]] = true
	}
	for _, x := range b.steps {
		if keep[x] {
			shown = append(shown, x)
		}
	}
	return shown, len(b.steps) - len(shown)
}

// frameLine draws a step: mark, name, and its time at the right.
func (x *buildStep) frameLine(in frameInput) frameLine {
	style, word := "", ""
	switch {
	case strings.HasSuffix(x.failed, "context canceled"):
		style, word = yellow, "CANCELED "
	case x.failed != "":
		style, word = red, "ERROR "
	case x.cached && x.done():
		style, word = blue, "CACHED "
	case x.done():
		style = blue
	}
	return x.timed(in, style, " => "+word+x.name, x.elapsed(in.now))
}

// timed is a line with a time at its right end.
func (x *buildStep) timed(in frameInput, style, text string, took time.Duration) frameLine {
	seconds := fmt.Sprintf("%.1fs", took.Seconds())
	text = pad(text, max(1, in.width-2-len(seconds))) + " " + seconds
	return frameLine{in.style.paint(style, text), text}
}

// below are the lines under a step: what is transferred and the end of the output, while it runs or when it failed.
func (x *buildStep) below(in frameInput) []frameLine {
	if x.done() && x.failed == "" {
		return nil
	}
	var lines []frameLine
	for _, p := range x.parts {
		if in.final || p.Started == nil {
			continue
		}
		to := in.now
		if p.Completed != nil {
			to = *p.Completed
		}
		lines = append(lines, x.timed(in, "", " => => "+partText(*p), max(0, to.Sub(*p.Started))))
	}
	for _, l := range x.tail {
		text := cut(" => => # "+l, in.width-1)
		lines = append(lines, frameLine{in.style.paint(faint, text), text})
	}
	return lines
}
