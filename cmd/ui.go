// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/provider"
)

// progress shows what a plan does while it is applied: one row for each thing that the plan touches. Its Event, show and note may be called from
// several goroutines at once and do not wait for the terminal.
type progress interface {
	compose.Sink
	// show tells the state of something without an operation of its own, such as a container that runs already.
	show(s status)
	// note shows a line of talk.
	note(text string)
	// above runs write, which writes to the same terminal, so that neither gets into the other's lines.
	above(write func())
	// close draws what became of it all and gives the terminal back. It may be called again.
	close()
}

// rowState is how far the thing in a row is.
type rowState int

const (
	rowWorking rowState = iota
	rowDone
	rowWarning
	rowFailed
)

func (s rowState) String() string {
	return [...]string{"Working", "Done", "Warning", "Error"}[s]
}

// status is what a row says: "Container app-web-1", "Started".
type status struct {
	ID   string
	Part string // a part of it, such as an image's layer; its own row in no rendering
	Text string
	// Details say more: why, or the error.
	Details        string
	State          rowState
	Current, Total int64 // bytes of the part
	// Again: it is tried in another way, so that an earlier failure no longer counts.
	Again bool
}

// verbs are the words for an operation under way and done.
func verbs(op compose.Op) (working, done string) {
	switch op.Kind {
	case compose.OpPullImage:
		return "Pulling", "Pulled"
	case compose.OpBuildImage:
		return "Building", "Built"
	case compose.OpRemoveImage, compose.OpRemoveNetwork, compose.OpRemoveVolume, compose.OpRemoveContainer:
		return "Removing", "Removed"
	case compose.OpCreateNetwork, compose.OpCreateVolume, compose.OpCreateContainer:
		return "Creating", "Created"
	case compose.OpFillVolume:
		return "Restoring", "Restored"
	case compose.OpCopyFiles:
		return "Copying files", "Created"
	case compose.OpStartContainer:
		return "Starting", "Started"
	case compose.OpStopContainer:
		return "Stopping", "Stopped"
	case compose.OpRestartContainer:
		return "Restarting", "Restarted"
	case compose.OpKillContainer:
		return "Killing", "Killed"
	case compose.OpPauseContainer:
		return "Pausing", "Paused"
	case compose.OpUnpauseContainer:
		return "Unpausing", "Unpaused"
	case compose.OpRenameContainer:
		return "Renaming", "Created"
	case compose.OpRunHook:
		return "Running hook", "Hook done"
	case compose.OpRunProvider:
		if op.Name == provider.Stop {
			return "Stopping", "Stopped"
		}
		return "Removing", "Removed"
	case compose.OpAwait:
		return "Waiting", awaited(op.Condition)
	}
	return "Working", "Done"
}

func awaited(c compose.Condition) string {
	switch c {
	case compose.ConditionHealthy:
		return "Healthy"
	case compose.ConditionCompleted:
		return "Exited"
	}
	return "Running"
}

// wording turns events into what rows say. It remembers what a plan does to each thing, which the queued events tell in advance: several
// operations that replace a container read as one.
type wording struct {
	mu    sync.Mutex
	kinds map[string]map[compose.OpKind]bool // by target
}

// status is what the row of an event's thing says now; ok is false for events that say nothing to the user.
func (w *wording) status(e compose.Event) (s status, ok bool) {
	s = status{ID: title(e.Op.Target), Part: e.Part, Current: e.Current, Total: e.Total}
	working, done := verbs(e.Op)
	switch e.Kind {
	case compose.EventQueued:
		w.note(e.Op)
		return status{}, false
	case compose.EventStarted:
		s.Text, s.Again = working, e.Op.Fallback != 0
		if len(e.Op.Changes) > 0 {
			s.Details = e.Op.Reason
		}
	case compose.EventProgress:
		s.Text = working
		if e.Part != "" {
			s.Text = e.Text
		}
	case compose.EventWarning:
		s.State, s.Text, s.Details = rowWarning, "Warning", e.Text
	case compose.EventDone:
		s.State, s.Text = rowDone, done
	case compose.EventFailed:
		s.failed(e)
	case compose.EventSkipped:
		if e.Text != "" { // an alternative that was not needed
			return status{}, false
		}
		s.State, s.Text = rowWarning, "Skipped"
	default:
		return status{}, false
	}
	w.recreated(e, &s)
	return s, s.ID != ""
}

// failed says how an operation failed; one that was interrupted did not.
func (s *status) failed(e compose.Event) {
	s.State, s.Text = rowFailed, "Error"
	switch {
	case errors.Is(e.Err, context.DeadlineExceeded):
		s.State, s.Text = rowWarning, "Timed out"
		return
	case errors.Is(e.Err, context.Canceled):
		s.State, s.Text = rowWarning, "Interrupted"
		return
	case e.Op.BestEffort:
		s.State, s.Text = rowWarning, "Warning"
	}
	if e.Err != nil {
		s.Details = firstLine(e.Err.Error())
	}
}

func (w *wording) note(op compose.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kinds == nil {
		w.kinds = map[string]map[compose.OpKind]bool{}
	}
	if w.kinds[op.Target] == nil {
		w.kinds[op.Target] = map[compose.OpKind]bool{}
	}
	w.kinds[op.Target][op.Kind] = true
}

// recreated words the replacement of a container: the new one is created, the old one stopped and removed, and the new one renamed.
func (w *wording) recreated(e compose.Event, s *status) {
	w.mu.Lock()
	kinds := w.kinds[e.Op.Target]
	w.mu.Unlock()
	if !kinds[compose.OpCreateContainer] || !kinds[compose.OpRemoveContainer] || s.State > rowDone {
		return
	}
	last := compose.OpCreateContainer
	if kinds[compose.OpRenameContainer] {
		last = compose.OpRenameContainer
	}
	switch e.Op.Kind {
	case compose.OpCreateContainer, compose.OpStopContainer, compose.OpRemoveContainer, compose.OpRenameContainer, compose.OpCopyFiles:
		s.State, s.Text = rowWorking, "Recreating"
		if e.Op.Kind == last && e.Kind == compose.EventDone {
			s.State, s.Text = rowDone, "Recreated"
		}
	}
}

// title gives the first letter of a target its capital: "Container app-web-1".
func title(target string) string {
	if target == "" {
		return ""
	}
	return strings.ToUpper(target[:1]) + target[1:]
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// startProgress opens the progress that the flags ask for: live rows on a terminal, lines elsewhere. heading names the command.
func (a *app) startProgress(heading string, quiet bool) progress {
	w := a.err
	if isTrue(a.getenv("COMPOSE_STATUS_STDOUT")) {
		w = a.out
	}
	var p progress
	switch mode := a.progressMode(w, quiet); mode {
	case "quiet":
		p = quietProgress{}
	case "json":
		p = &jsonProgress{out: w}
	case "tty":
		p = startTree(w, heading, a.treeStyle(w), a.onRestore)
	default:
		p = newPlainProgress(w)
	}
	return closing{p, a.setLive(p)}
}

// setLive makes p what talk goes through. A menu steps aside for it, and is back with release.
func (a *app) setLive(p progress) (release func()) {
	a.mu.Lock()
	before := a.live
	a.live = p
	a.mu.Unlock()
	m, _ := before.(*menu)
	m.hide()
	return func() {
		a.mu.Lock()
		a.live = before
		a.mu.Unlock()
		m.reveal()
	}
}

// aside writes something to the terminal, above live progress if there is any.
func (a *app) aside(write func()) {
	a.mu.Lock()
	live := a.live
	a.mu.Unlock()
	if live != nil {
		live.above(write)
		return
	}
	write()
}

// progressMode is the rendering to use on w: tty, plain, json or quiet.
func (a *app) progressMode(w io.Writer, quiet bool) string {
	switch {
	case quiet || a.progressName == "quiet" || a.progressName == "none":
		return "quiet"
	case a.progressName == "json" || a.progressName == "plain" || a.progressName == "tty":
		return a.progressName
	case a.ansi == "never":
		return "plain"
	case a.ansi == "always" || a.moves(w):
		return "tty"
	}
	return "plain"
}

// closing runs after once when the progress is closed.
type closing struct {
	progress
	after func()
}

func (c closing) close() {
	c.progress.close()
	c.after()
}

// warn tells the user something that stops nothing. It is talk: it goes to stderr, above live progress if there is any.
func (a *app) warn(text string) {
	a.mu.Lock()
	live := a.live
	a.mu.Unlock()
	if live != nil {
		live.note(text)
		return
	}
	if a.progressName == "json" {
		(&jsonProgress{out: a.err}).note(text)
		return
	}
	io.WriteString(a.err, a.painter(a.err, false)(yellow, "warning:")+" "+text+"\n")
}
