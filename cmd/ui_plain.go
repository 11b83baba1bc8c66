// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"io"
	"sync"

	"github.com/seed71221737/dev/compose"
)

// plainProgress writes one line for each change, for logs and pipes. Byte counts of layers are left out.
type plainProgress struct {
	wording
	lock   sync.Mutex
	out    io.Writer
	last   map[string]string
	builds *builds
}

func newPlainProgress(out io.Writer) *plainProgress {
	p := &plainProgress{out: out}
	p.builds = newBuilds(func(line string) { p.above(func() { fmt.Fprintln(p.out, line) }) })
	return p
}

func (p *plainProgress) Event(e compose.Event) {
	if taken, _ := p.builds.take(e); taken {
		return
	}
	if s, ok := p.status(e); ok {
		p.show(s)
	}
}

func (p *plainProgress) show(s status) {
	if s.Part != "" {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.last[s.ID] == s.Text && s.State < rowWarning {
		return
	}
	if p.last == nil {
		p.last = map[string]string{}
	}
	p.last[s.ID] = s.Text
	line := s.ID + " " + s.Text
	if s.Details != "" {
		line += ": " + s.Details
	}
	fmt.Fprintln(p.out, line)
}

func (p *plainProgress) note(text string) {
	p.lock.Lock()
	defer p.lock.Unlock()
	fmt.Fprintln(p.out, "warning: "+text)
}

func (p *plainProgress) above(write func()) {
	p.lock.Lock()
	defer p.lock.Unlock()
	write()
}

func (p *plainProgress) close() {}

// jsonProgress writes one JSON object a line, with the fields that docker compose's --progress json has.
type jsonProgress struct {
	wording
	lock sync.Mutex
	out  io.Writer
}

type jsonStatus struct {
	ID       string `json:"id,omitempty"`
	ParentID string `json:"parent_id,omitempty"`
	Status   string `json:"status,omitempty"`
	Text     string `json:"text,omitempty"`
	Details  string `json:"details,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Current  int64  `json:"current,omitempty"`
	Total    int64  `json:"total,omitempty"`
	Percent  int    `json:"percent,omitempty"`
}

func (p *jsonProgress) Event(e compose.Event) {
	if steps := buildSteps(e); steps != nil {
		for _, s := range steps {
			p.write(jsonOf(s, ""))
		}
		return
	}
	s, ok := p.status(e)
	if !ok {
		return
	}
	reason := ""
	if e.Kind == compose.EventStarted {
		reason = e.Op.Reason
	}
	p.write(jsonOf(s, reason))
}

func jsonOf(s status, reason string) jsonStatus {
	j := jsonStatus{
		ID: s.ID, Status: s.State.String(), Text: s.Text, Details: s.Details, Reason: reason, Current: s.Current, Total: s.Total,
	}
	if s.Part != "" {
		j.ID, j.ParentID = s.Part, s.ID
	}
	if s.Total > 0 {
		j.Percent = int(min(100, 100*s.Current/s.Total))
	}
	return j
}

func (p *jsonProgress) show(s status) { p.write(jsonOf(s, "")) }

func (p *jsonProgress) note(text string) {
	p.write(jsonStatus{Status: rowWarning.String(), Text: "Warning", Details: text})
}

func (p *jsonProgress) write(j jsonStatus) {
	p.lock.Lock()
	defer p.lock.Unlock()
	_ = writeJSON(p.out, j)
}

func (p *jsonProgress) above(write func()) {
	p.lock.Lock()
	defer p.lock.Unlock()
	write()
}

func (p *jsonProgress) close() {}

// quietProgress shows nothing.
type quietProgress struct{}

func (quietProgress) Event(compose.Event) {}
func (quietProgress) show(status)         {}
func (quietProgress) note(string)         {}
func (quietProgress) above(write func())  { write() }
func (quietProgress) close()              {}
