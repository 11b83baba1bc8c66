// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import "github.com/seed71221737/dev/hostagent"

// Event is something a command on a machine tells its user.
type Event struct {
	Machine string
	// Stage is set while a machine starts.
	Stage hostagent.Stage
	// Text is one line for people; Hint the next step, where Text is a warning that has one.
	Text, Hint string
	Warning    bool
}

// Sink takes events. A nil Sink drops them. It is called from one goroutine at a time for each machine.
type Sink func(Event)

func (s Sink) say(name, text string) { s.send(Event{Machine: name, Text: text}) }

func (s Sink) send(e Event) {
	if s != nil {
		s(e)
	}
}
