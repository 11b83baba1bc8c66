// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"sync"
)

// lastLines keeps the end of what a program said. It is safe for concurrent use.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *lastLines) add(line string) {
	const most = 5
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if len(l.lines) > most {
		l.lines = l.lines[1:]
	}
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "; ")
}
