// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"bytes"
	"io"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// aheadQueue is how many requests that no program waits for may wait themselves, and aheadAnswers how many bytes of answers are sent together.
	aheadQueue   = 256
	aheadAnswers = 32 << 10
)

// isAhead says that a request is carried out after those that came before it: the times of files tell in which order they were made.
func isAhead(r *wire.Request) bool {
	return r.Flags&wire.FlagAhead != 0 && (r.Op == wire.OpCreate || r.Op == wire.OpUnlink)
}

// doAhead carries such requests out. Their answers are held back while more are there: the guest takes many at once for hardly more than one.
func (c *connection) doAhead(queue <-chan wire.Request) {
	var answers []byte
	for r := range queue {
		answers = append(answers, c.outcome(&r)...)
		c.under.give(cost(&r))
		if len(queue) == 0 || len(answers) >= aheadAnswers {
			c.sendFrame(answers)
			answers = answers[:0]
		}
	}
}

// holds says whether a file of a size has what a request to make it asked for, and nothing else.
func holds(f io.ReaderAt, size uint64, r *wire.Request) bool {
	if len(r.Data) == 0 {
		return size == 0
	}
	if size != r.Offset+uint64(len(r.Data)) {
		return false
	}
	have := make([]byte, len(r.Data))
	_, err := f.ReadAt(have, int64(r.Offset))
	return err == nil && bytes.Equal(have, r.Data)
}
