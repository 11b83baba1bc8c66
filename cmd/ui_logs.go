// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"io"
	"strings"
	"sync"
	"time"
)

// logColors are given to containers in the order in which they appear, as docker compose does.
var logColors = [...]string{"36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"}

// logPrinter writes the output of containers line by line, each with its container's name in a color of its own. It may be used by several
// goroutines at once.
type logPrinter struct {
	out, err   io.Writer
	paint      paint
	prefix     bool
	timestamps bool

	mu sync.Mutex
	// around runs every write, so that live progress can step aside; nil: just write.
	around func(write func())
	color  map[string]string
	width  int
}

// register gives a container its color and makes room for its name; names registered before any output line up.
func (p *logPrinter) register(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.registerLocked(name)
}

func (p *logPrinter) registerLocked(name string) string {
	if p.color == nil {
		p.color = map[string]string{}
	}
	if _, ok := p.color[name]; !ok {
		p.color[name] = logColors[len(p.color)%len(logColors)]
		p.width = max(p.width, len(name))
	}
	return p.color[name]
}

// setAround sets what runs every write from now on; it returns when no write is under way in another.
func (p *logPrinter) setAround(around func(write func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.around = around
}

// line writes one line of a container's output; when is its time, shown with timestamps.
func (p *logPrinter) line(name string, stderr bool, when time.Time, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	if p.prefix {
		color := p.registerLocked(name)
		b.WriteString(p.paint(color, pad(name, p.width)+"  |") + " ")
	}
	if p.timestamps && !when.IsZero() {
		b.WriteString(when.UTC().Format(timestampFormat) + " ")
	}
	b.WriteString(strings.TrimSuffix(text, "\n"))
	b.WriteByte('\n')
	w := p.out
	if stderr {
		w = p.err
	}
	p.write(w, b.String())
}

// status writes what happened to a container: "web-1 exited with code 0".
func (p *logPrinter) status(name, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(p.out, p.paint(p.registerLocked(name), name+" "+what)+"\n")
}

func (p *logPrinter) write(w io.Writer, text string) {
	if p.around == nil {
		io.WriteString(w, text)
		return
	}
	p.around(func() { io.WriteString(w, text) })
}

// timestampFormat is RFC 3339 with all nine digits, so that lines align, as `docker logs -t` writes it.
const timestampFormat = "2006-01-02T15:04:05.000000000Z07:00"
