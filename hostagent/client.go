// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrNotRunning says that nobody answers at a control socket.
var ErrNotRunning = errors.New("the machine's host agent does not run")

// RefusedError is the agent's reason for not doing what was asked.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return e.Text }

// EndedError says that the machine ended while it was to do something, and why.
type EndedError struct{ Text string }

func (e *EndedError) Error() string { return e.Text }

// dialDeadline bounds connecting to the control socket: it is on this host, and the agent never leaves it unserved.
const dialDeadline = 5 * time.Second

// Client talks to a running host agent. It is safe for concurrent use, and holds no connection between calls.
type Client struct {
	path string
	http *http.Client
}

// Dial makes a client for the control socket at path (a unix socket, or a named pipe on Windows). Nothing is connected yet.
func Dial(path string) *Client {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialDeadline)
		defer cancel()
		return dialControl(ctx, path)
	}}
	return &Client{path: path, http: &http.Client{Transport: transport}}
}

// Status asks what the agent knows now.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	if err := c.get(ctx, "/v1/status", &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Metrics asks for the agent's own figures.
func (c *Client) Metrics(ctx context.Context) (*Metrics, error) {
	var m Metrics
	if err := c.get(ctx, "/v1/metrics", &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// Health asks the guest now, and says what is wrong besides the status: nil when the machine is well.
func (c *Client) Health(ctx context.Context) ([]Problem, error) {
	var problems []Problem
	if err := c.get(ctx, "/v1/health", &problems); err != nil {
		return nil, err
	}
	return problems, nil
}

// Events calls sink for each event from now on, in order and from this goroutine: first what was said of late, and one that tells the present phase. It returns nil
// when the agent ends the stream because it ends itself, and otherwise why the stream broke.
func (c *Client) Events(ctx context.Context, sink func(Event)) error {
	res, err := c.do(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 4096), 1<<20)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read an event of the host agent: %w", err)
		}
		sink(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("follow the host agent's events: %w", err)
	}
	return nil
}

// Stop asks for an orderly end and returns as soon as the agent has taken the order: follow Events or Status for the rest. Containers get grace to
// stop (0: the engine's own time), then the power button is pressed, then the VM is killed.
func (c *Client) Stop(ctx context.Context, grace time.Duration) error {
	return c.post(ctx, "/v1/stop?"+url.Values{"grace": {grace.String()}}.Encode())
}

// StopCold is Stop for a machine that is to boot anew at its next start: no memory state is left.
func (c *Client) StopCold(ctx context.Context, grace time.Duration) error {
	return c.post(ctx, "/v1/stop?"+url.Values{"grace": {grace.String()}, "cold": {"1"}}.Encode())
}

// Suspend saves the machine's memory, with what runs in it, and ends its VM; the agent stays. It returns when that is done, or the machine goes on because
// it could not be. A machine that is suspended stays so until Resume.
func (c *Client) Suspend(ctx context.Context) error { return c.post(ctx, "/v1/suspend") }

// Resume restores what was suspended, or has fallen asleep, and returns when the machine runs. One that runs is no error.
func (c *Client) Resume(ctx context.Context) error { return c.post(ctx, "/v1/resume") }

// Kill asks for the VM to be killed, and returns as soon as the agent has taken the order.
func (c *Client) Kill(ctx context.Context) error { return c.post(ctx, "/v1/kill") }

func (c *Client) post(ctx context.Context, path string) error {
	res, err := c.do(ctx, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(into); err != nil {
		return fmt.Errorf("read the host agent's answer to %q: %w", path, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://hostagent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask the host agent: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" || isAbsent(err) {
			return nil, fmt.Errorf("ask the host agent at %q: %w (%w)", c.path, ErrNotRunning, err)
		}
		return nil, fmt.Errorf("ask the host agent at %q: %w", c.path, err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // the status says enough without it
		switch res.StatusCode {
		case http.StatusConflict:
			return nil, &RefusedError{Text: strings.TrimSpace(string(text))}
		case http.StatusGone:
			return nil, &EndedError{Text: strings.TrimSpace(string(text))}
		}
		return nil, fmt.Errorf("ask the host agent for %q: %s: %s", path, res.Status, strings.TrimSpace(string(text)))
	}
	return res, nil
}
