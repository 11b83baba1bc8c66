// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import "bytes"

// maxLine bounds a line: a container that never ends one must not fill the memory. The engine itself splits lines at 16 KiB.
const maxLine = 1 << 20

// lineWriter splits what is written into lines, given to line without their end. flush gives the rest. The slice is valid during the
// call only. It is not safe for concurrent use.
type lineWriter struct {
	line func([]byte)
	rest []byte
}

// Write never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		w.emit(p[:i])
		p = p[i+1:]
	}
	for len(w.rest)+len(p) > maxLine {
		k := maxLine - len(w.rest)
		w.emit(p[:k])
		p = p[k:]
	}
	w.rest = append(w.rest, p...)
	return n, nil
}

func (w *lineWriter) emit(end []byte) {
	if len(w.rest) > 0 {
		w.rest = append(w.rest, end...)
		end = w.rest
	}
	w.line(bytes.TrimSuffix(end, []byte("\r")))
	w.rest = w.rest[:0]
}

// flush gives a last line that has no end.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.emit(nil)
	}
}
