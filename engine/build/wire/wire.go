// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package wire is the language between dev and the program that builds for it.
//
// The two share one connection, the program's standard input and output, with many streams on it. Each stream begins with one message from the
// side that opens it. dev opens a stream for each build: a [Request], answered by [Event]s up to the one that ends it; closing the stream before
// that cancels the build. The program opens a stream for each thing that only dev can give: a [Call], answered by an [Answer]; after a call for a
// connection the stream is that connection.
//
// The package knows neither BuildKit nor Docker, so that both sides can import it.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/hashicorp/yamux"
)

// Version is the language's. It changes whenever a side would misunderstand the other.
const Version = 2

// maxMessage bounds a message, in bytes.
const maxMessage = 64 << 20

// Request asks for a build. The names of its attributes are those of BuildKit's Dockerfile frontend
// (moby/buildkit frontend/dockerui/config.go, frontend/dockerfile/builder).
type Request struct {
	Version  int
	Service  string
	Frontend string
	Attrs    map[string]string
	// Folders are the host's folders that the build may read, by the name of their mount.
	Folders map[string]string
	// Inline is the text of a file InlineName in the mount InlineMount; empty if there is none.
	Inline, InlineName, InlineMount string
	// SharedKey lets a later build of the same folder send only what changed.
	SharedKey    string
	CacheFrom    []Cache
	CacheTo      []Cache
	Entitlements []string
	Exporter     string
	Export       map[string]string
	Secrets      map[string]Secret
	Agents       []Agent
	// Check looks the Dockerfile over instead of building.
	Check bool
	// HostGateway, if set, is the word in Attrs["add-hosts"] to replace with the engine's address for it.
	HostGateway string
}

// Cache is one place to take build cache from or put it to.
type Cache struct {
	Type  string
	Attrs map[string]string
}

// Secret is a file's content, read when the build asks, or the content itself.
type Secret struct {
	File    string
	Content []byte
}

// Agent is an SSH agent or key; without a path it is the user's own agent.
type Agent struct{ ID, Path string }

// Event is news of a build. Exactly one field is set; after a result or a failure nothing follows.
type Event struct {
	Status  *Status  `json:",omitempty"`
	Result  *Result  `json:",omitempty"`
	Failure *Failure `json:",omitempty"`
}

// Result is a build that succeeded.
type Result struct {
	ID       string
	Warnings []string
	// Report is what a check found, and Flawed whether that is anything.
	Report string `json:",omitempty"`
	Flawed bool   `json:",omitempty"`
}

// Failure is one that did not.
type Failure struct {
	Text string
	// Source are the lines of the Dockerfile that BuildKit blames, if it does.
	Source   string
	Warnings []string
}

// Status says what changed about a build's steps.
type Status struct {
	Steps    []Step    `json:",omitempty"`
	Parts    []Part    `json:",omitempty"`
	Logs     []Log     `json:",omitempty"`
	Warnings []Warning `json:",omitempty"`
}

// Step is a step of a build: an instruction, or something that BuildKit does for it.
type Step struct {
	ID, Name           string
	Started, Completed *time.Time
	Cached             bool
	Error              string
}

// Part is something within a step, such as a layer that is fetched; Current and Total are bytes where they are known.
type Part struct {
	Step, Name         string
	Current, Total     int64
	Started, Completed *time.Time
}

// Log is output of a step.
type Log struct {
	Step string
	Data []byte
	At   time.Time
}

// Warning is what BuildKit finds fault with in a step.
type Warning struct{ Step, Text string }

// Call asks dev for something. Exactly one field is set.
type Call struct {
	// Dial asks for a connection to the engine.
	Dial *Dial `json:",omitempty"`
	// Registry asks for the credentials for a registry's host name.
	Registry *string `json:",omitempty"`
}

// Dial names one of the engine's upgraded connections.
type Dial struct {
	Path, Proto string
	Meta        map[string][]string
}

// Answer answers a call. Credentials and an error may come together.
type Answer struct {
	Error       string
	Credentials *Credentials
}

// Credentials are a registry's, as the docker configuration has them.
type Credentials struct {
	Username, Password, Auth, ServerAddress, IdentityToken, RegistryToken string
}

// Write writes a message: its length and its JSON.
func Write(w io.Writer, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// Read reads a message and not a byte more. Its error is io.EOF where the stream ends instead.
func Read(r io.Reader, message any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("read a message of %d bytes: at most %d are expected", n, maxMessage)
	}
	var b bytes.Buffer // grows with what comes, not with what is announced
	if got, err := io.CopyN(&b, r, int64(n)); err != nil {
		if got < int64(n) && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(b.Bytes(), message)
}

// Open makes dev's end of a connection.
func Open(conn io.ReadWriteCloser) (*yamux.Session, error) { return yamux.Client(conn, config()) }

// Accept makes the program's end of a connection.
func Accept(conn io.ReadWriteCloser) (*yamux.Session, error) { return yamux.Server(conn, config()) }

// config has no deadlines: a busy machine may stop either side for long, and the end of the other is seen as the end of the pipe.
func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.StreamOpenTimeout = 0
	c.ConnectionWriteTimeout = time.Hour
	c.MaxStreamWindowSize = 1 << 20
	c.LogOutput, c.Logger = nil, log.New(io.Discard, "", 0) // what it logs it also returns
	return c
}

// Pipes joins the two pipes between the sides into a connection.
type Pipes struct {
	io.ReadCloser
	io.WriteCloser
}

// Close closes both.
func (p Pipes) Close() error { return errors.Join(p.WriteCloser.Close(), p.ReadCloser.Close()) }
