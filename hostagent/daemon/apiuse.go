// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync"
)

// apiConn is the guest's end of a connection to the Docker API, which tells a visit whether a request is under way: clients keep connections for long when
// they want nothing, but attach, exec, logs that are followed, events and builds are requests whose answers do not end.
type apiConn struct {
	net.Conn
	visit *visit

	mu     sync.Mutex
	answer answerStream
}

// Write passes on what the client says, which begins a request or goes on with one.
func (c *apiConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.answer.asked(p)
	c.visit.use(true)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Read passes on what the engine says.
func (c *apiConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer.read(p[:n])
	c.visit.use(!c.answer.idle())
	return n, err
}

// CloseWrite ends the client's direction.
func (c *apiConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// part is what an HTTP/1.1 server's stream is in the middle of.
type part int

const (
	partNone    part = iota // the last answer has ended
	partHead                // status line and headers
	partBody                // a body of known length
	partSize                // the line with a chunk's size
	partChunk               // a chunk and the end of line after it
	partTrailer             // lines after the last chunk, to an empty one
	partRest                // all that follows: hijacked, ended by closing, or not HTTP
)

// maxHead bounds what is kept of an answer's head; longer ones are not looked into.
const maxHead = 64 << 10

// answerStream follows the answers on one connection, as far as to know where each ends. It errs on the side of an answer that has not.
type answerStream struct {
	pending  bool // a request was sent and not answered
	headOnly bool // it asks for no body
	at       part
	line     []byte // of the head, or the line begun
	left     int64  // of the body or chunk
}

// idle says that nothing is under way.
func (a *answerStream) idle() bool { return !a.pending && a.at == partNone }

// asked takes what the client said next.
func (a *answerStream) asked(p []byte) {
	if a.idle() {
		a.headOnly = bytes.HasPrefix(p, []byte("HEAD "))
	}
	a.pending = true
}

// read takes what the server said next.
func (a *answerStream) read(p []byte) {
	for len(p) > 0 {
		switch a.at {
		case partNone:
			a.at, a.line = partHead, nil
		case partHead:
			p = a.head(p)
		case partBody, partChunk:
			n := min(a.left, int64(len(p)))
			p, a.left = p[n:], a.left-n
			if a.left > 0 {
				break
			}
			if a.at == partChunk {
				a.at = partSize
			} else {
				a.end()
			}
		case partSize, partTrailer:
			p = a.nextLine(p)
		case partRest:
			return
		}
	}
}

func (a *answerStream) end() { a.at, a.line, a.pending = partNone, nil, false }

// head collects the head to its end.
func (a *answerStream) head(p []byte) (rest []byte) {
	before := len(a.line)
	a.line = append(a.line, p[:min(len(p), maxHead)]...)
	i := bytes.Index(a.line[max(0, before-3):], []byte("\r\n\r\n"))
	if i < 0 {
		if len(a.line) >= maxHead {
			a.at, a.line = partRest, nil
		}
		return p[min(len(p), maxHead):]
	}
	size := max(0, before-3) + i + 4
	rest = p[size-before:]
	a.body(string(a.line[:size-4]))
	return rest
}

// body looks at a head for what follows it.
func (a *answerStream) body(head string) {
	a.line = nil
	status, fields, _ := strings.Cut(head, "\r\n")
	words := strings.Fields(status)
	if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		a.at = partRest
		return
	}
	length, chunked := int64(-1), false
	for field := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				length = n
			}
		case "transfer-encoding":
			chunked = strings.EqualFold(value, "chunked")
		}
	}
	switch code := words[1]; {
	case code == "101":
		a.at = partRest
	case strings.HasPrefix(code, "1"): // the answer is still to come
		a.at = partNone
	case a.headOnly || code == "204" || code == "304" || length == 0 && !chunked:
		a.end()
	case chunked:
		a.at = partSize
	case length > 0:
		a.at, a.left = partBody, length
	default:
		a.at = partRest
	}
}

// nextLine collects a line and acts on it.
func (a *answerStream) nextLine(p []byte) (rest []byte) {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		a.line = append(a.line, p...)
		if len(a.line) >= maxHead {
			a.at, a.line = partRest, nil
		}
		return nil
	}
	line := strings.TrimRight(string(append(a.line, p[:i]...)), "\r")
	a.line = nil
	switch {
	case a.at == partTrailer && line == "":
		a.end()
	case a.at == partSize:
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 16, 63)
		switch {
		case err != nil || n < 0:
			a.at = partRest
		case n == 0:
			a.at = partTrailer
		default:
			a.at, a.left = partChunk, n+2 // with its end of line
		}
	}
	return p[i+1:]
}
