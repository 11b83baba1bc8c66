// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

// EventKind says what an [Event] tells.
type EventKind string

// The kinds of events. Every operation gets Queued, then Started and one of Done, Failed, Skipped; or Skipped alone.
const (
	EventQueued   EventKind = "queued"
	EventStarted  EventKind = "started"
	EventProgress EventKind = "progress"
	EventWarning  EventKind = "warning"
	EventDone     EventKind = "done"
	EventFailed   EventKind = "failed"
	// EventSkipped: something the operation needs failed, or the plan was cancelled.
	EventSkipped EventKind = "skipped"
)

// Event tells of an operation's life while a plan is applied.
type Event struct {
	Kind EventKind
	Op   Op
	// Text is the engine's own word on progress or a warning.
	Text string
	// Part names a part of the operation (an image layer); Current and Total count its bytes, Total 0 if unknown.
	Part           string
	Current, Total int64
	// Detail carries what only one adapter and one renderer understand (BuildKit's solve status).
	Detail any
	// Result is what the operation made; with EventDone.
	Result Result
	// Err is why it failed; with EventFailed.
	Err error
}

// Sink takes events. It is called from several goroutines at once and must not block for long.
type Sink interface {
	Event(Event)
}

// SinkFunc lets a function be a [Sink].
type SinkFunc func(Event)

// Event calls f.
func (f SinkFunc) Event(e Event) { f(e) }

// Discard is a [Sink] that forgets.
var Discard Sink = SinkFunc(func(Event) {})
