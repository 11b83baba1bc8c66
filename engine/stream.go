// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// ErrDetached tells that the user typed the detach keys: the container, or the command in it, goes on.
var ErrDetached = errors.New("detached")

// defaultDetachKeys leave a terminal's session, as with the docker CLI.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// Terminal is the user's terminal.
type Terminal interface {
	// Raw has every key handed through as it is typed, and returns what undoes that.
	Raw() (restore func() error, err error)
	// Size is its size in characters; zeros if unknown.
	Size() (width, height int)
	// OnResize has f called, from any goroutine, when the size may have changed, until stop.
	OnResize(f func()) (stop func())
}

// Streams are the user's side of a command's input and output.
type Streams struct {
	// In is what is typed; nil is nothing. A read of it that never ends outlives the call: it cannot be interrupted.
	In       io.Reader
	Out, Err io.Writer
	// Terminal is In's and Out's; nil if there is none. It is put into raw mode while a container with a TTY is attached.
	Terminal Terminal
	// DetachKeys end the session without ending the command, such as "ctrl-p,ctrl-q", which is the default unless the docker
	// configuration has another. They work with a TTY.
	DetachKeys string
}

// session is one attached connection.
type session struct {
	Streams
	conn client.HijackedResponse
	tty  bool
	// resize tells the engine the terminal's size.
	resize func(ctx context.Context, width, height uint) error
}

// run carries the bytes until the output ends (nil), the user detaches ([ErrDetached]) or ctx is done. It closes the connection, and
// leaves the terminal as it was.
func (s *session) run(ctx context.Context) (err error) {
	defer s.conn.Close()
	defer context.AfterFunc(ctx, s.conn.Close)()
	if s.tty && s.Terminal != nil {
		restore, rawErr := s.Terminal.Raw()
		if rawErr != nil {
			return fmt.Errorf("set up the terminal: %w", rawErr)
		}
		defer func() { err = errors.Join(err, restore()) }()
		defer s.followSize(ctx)()
	}
	detached, output := make(chan error, 1), make(chan error, 1)
	if s.In != nil {
		go func() { s.copyIn(detached) }()
	}
	go func() { output <- s.copyOut() }()
	select {
	case err := <-detached:
		s.conn.Close()
		<-output //nolint:errcheck // ended by the closing, whatever it says
		return err
	case err := <-output:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the output: %w", err)
		}
		return nil
	}
}

// copyIn sends what is typed, and closes the command's input at its end. The detach keys go to detached.
func (s *session) copyIn(detached chan<- error) {
	in := s.In
	if s.tty {
		if keys, err := parseDetachKeys(s.DetachKeys); err == nil {
			in = &detachReader{r: in, keys: keys}
		}
	}
	_, err := io.Copy(s.conn.Conn, in)
	if errors.Is(err, ErrDetached) {
		detached <- ErrDetached
		return
	}
	_ = s.conn.CloseWrite()
}

func (s *session) copyOut() error {
	out, errOut := s.Out, s.Err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	if s.tty {
		_, err := io.Copy(out, s.conn.Reader)
		return err
	}
	_, err := stdcopy.StdCopy(out, errOut, s.conn.Reader)
	return err
}

// followSize tells the engine the terminal's size, now and whenever it changes, until the returned function is called.
func (s *session) followSize(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changed, done := make(chan struct{}, 1), make(chan struct{})
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	tell()
	unsubscribe := s.Terminal.OnResize(tell)
	go func() {
		defer close(done)
		for {
			select {
			case <-changed:
				if w, h := s.Terminal.Size(); w > 0 && h > 0 {
					// A command that has just ended has no size; there is nothing to tell the user.
					_ = s.resize(ctx, uint(w), uint(h))
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		unsubscribe()
		cancel()
		<-done
	}
}

// consoleSize is the terminal's size for the moment when a command starts.
func (s Streams) consoleSize(tty bool) client.ConsoleSize {
	if !tty || s.Terminal == nil {
		return client.ConsoleSize{}
	}
	w, h := s.Terminal.Size()
	if w <= 0 || h <= 0 {
		return client.ConsoleSize{}
	}
	return client.ConsoleSize{Width: uint(w), Height: uint(h)}
}

// withDetachKeys fills in the detach keys of the docker configuration, or the usual ones, and checks them.
func (c *Client) withDetachKeys(s Streams) (Streams, error) {
	if s.DetachKeys == "" {
		if file, err := c.registries.file(); err == nil {
			s.DetachKeys = file.DetachKeys
		}
	}
	if s.DetachKeys == "" {
		s.DetachKeys = defaultDetachKeys
	}
	_, err := parseDetachKeys(s.DetachKeys)
	return s, err
}
