// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Terminal is the user's terminal.
type Terminal interface {
	// Raw hands every key through until restore.
	Raw() (restore func() error, err error)
	// Size is in characters.
	Size() (width, height int)
	// OnResize has f called when the size may have changed, until stop.
	OnResize(f func()) (stop func())
}

// Session is a command to run in a machine, or with an empty Command a login shell.
type Session struct {
	Command  string // for the machine's shell
	In       io.Reader
	Out, Err io.Writer
	// Terminal gives the command a terminal; nil: none.
	Terminal Terminal
	Term     string // TERM, with a Terminal
	// Signals are passed on to the command, as RFC 4254 names them; may be nil.
	Signals <-chan ssh.Signal
}

// ExitError is the end of a command with another status than 0.
type ExitError struct {
	Status int
	// Signal that ended it, if one did.
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "the command was ended by signal " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Run runs a session and waits for its end. When ctx ends, the command gets a hang-up and Run returns. A command that fails gives an *ExitError.
func Run(ctx context.Context, c *ssh.Client, s Session) error {
	session, err := c.NewSession()
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	defer session.Close() // the session has ended, or is given up
	session.Stdout, session.Stderr = s.Out, s.Err
	// Not session.Stdin: Wait would wait for the end of the user's input, which comes with the next key.
	in, err := session.StdinPipe()
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	if s.Terminal != nil {
		leave, err := enterTerminal(session, s)
		if err != nil {
			return err
		}
		defer leave()
	}
	if s.Command == "" {
		err = session.Shell()
	} else {
		err = session.Start(s.Command)
	}
	if err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	go func() { // ends with the input or with the session, whose pipe then breaks
		if s.In != nil {
			_, _ = io.Copy(in, s.In)
		}
		_ = in.Close()
	}()
	return wait(ctx, session, s.Signals)
}

// wait waits for the command's end and passes signals on until then.
func wait(ctx context.Context, session *ssh.Session, signals <-chan ssh.Signal) error {
	done := make(chan error, 1)
	go func() { done <- session.Wait() }()
	for {
		select {
		case err := <-done:
			return exitError(err)
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			_ = session.Signal(sig) // the command may have ended
		case <-ctx.Done():
			_ = session.Signal(ssh.SIGHUP)
			_ = session.Close()
			return context.Cause(ctx)
		}
	}
}

// exitError gives the end of a command our type.
func exitError(err error) error {
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{Status: exit.ExitStatus(), Signal: exit.Signal()}
	case errors.As(err, &missing):
		return errors.New("the machine went away while the command ran")
	}
	return fmt.Errorf("run command: %w", err)
}

// enterTerminal gives the session a terminal of the size of the user's, and hands keys and resizes through until leave.
func enterTerminal(session *ssh.Session, s Session) (leave func(), err error) {
	width, height := s.Terminal.Size()
	if width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	term := s.Term
	if term == "" {
		term = "xterm"
	}
	if err := session.RequestPty(term, height, width, ssh.TerminalModes{}); err != nil {
		return nil, fmt.Errorf("open a terminal in the machine: %w", err)
	}
	restore, err := s.Terminal.Raw()
	if err != nil {
		return nil, fmt.Errorf("prepare the terminal: %w", err)
	}
	stop := s.Terminal.OnResize(func() {
		if w, h := s.Terminal.Size(); w > 0 && h > 0 {
			_ = session.WindowChange(h, w)
		}
	})
	return func() {
		stop()
		_ = restore() // the terminal stays as it is: there is nothing more to do about it
	}, nil
}

// Quote writes words so that a POSIX shell takes them apart at the same places.
func Quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

func quoteWord(w string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=@%+,", r)
	}
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0 {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
