// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// monitor speaks QMP, QEMU's control protocol: JSON lines, an answer for each command in order, and events in between.
type monitor struct {
	conn    net.Conn
	write   sync.Mutex
	mu      sync.Mutex
	waiting []chan message // commands without an answer yet, oldest first
	closed  error
	// standing is held by who has the guest stand still for a while: nobody else may let it run meanwhile.
	standing sync.Mutex
	event    func(name string, data json.RawMessage)
}

// message is a line from QEMU.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *monitorError   `json:"error"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	gone   error
}

// monitorError is QEMU's refusal of a command.
type monitorError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *monitorError) Error() string { return e.Desc }

// errMonitorGone says that QEMU has closed its monitor, mostly because it has ended.
var errMonitorGone = errors.New("its monitor is gone")

// monitorDeadline bounds one command.
const monitorDeadline = 20 * time.Second

// dialMonitor connects and waits for the greeting, which comes only to one client at a time.
func dialMonitor(ctx context.Context, path string, event func(name string, data json.RawMessage)) (_ *monitor, err error) {
	ctx, cancel := context.WithTimeout(ctx, monitorDeadline)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("reach QEMU's monitor: %w", err)
	}
	m := &monitor{conn: conn, event: event}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	lines := bufio.NewReader(conn)
	greeting, err := readMessage(lines)
	if err == nil && greeting.QMP == nil {
		err = errors.New("it did not greet")
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach QEMU's monitor: %w", err)
	}
	go m.read(lines)
	if err := m.call(ctx, "qmp_capabilities", nil, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func readMessage(r *bufio.Reader) (message, error) {
	var msg message
	line, err := r.ReadBytes('\n')
	if err != nil {
		return msg, err
	}
	if err := json.Unmarshal(line, &msg); err != nil {
		return msg, fmt.Errorf("read QEMU's monitor: %w", err)
	}
	return msg, nil
}

// read hands out answers and events until the connection ends.
func (m *monitor) read(r *bufio.Reader) {
	for {
		msg, err := readMessage(r)
		if err != nil {
			m.fail(err)
			return
		}
		switch {
		case msg.Event != "":
			m.event(msg.Event, msg.Data)
		case msg.Return != nil || msg.Error != nil:
			m.mu.Lock()
			if len(m.waiting) > 0 {
				m.waiting[0] <- msg
				m.waiting = m.waiting[1:]
			}
			m.mu.Unlock()
		}
	}
}

// fail ends all commands that wait.
func (m *monitor) fail(err error) {
	err = fmt.Errorf("%w: %w", errMonitorGone, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = err
	for _, w := range m.waiting {
		w <- message{gone: err}
	}
	m.waiting = nil
}

func (m *monitor) close() { m.conn.Close() }

// call sends a command and waits for its answer.
func (m *monitor) call(ctx context.Context, command string, arguments, result any) error {
	ctx, cancel := context.WithTimeout(ctx, monitorDeadline)
	defer cancel()
	answer, err := m.send(command, arguments)
	if err != nil {
		return fmt.Errorf("tell QEMU to %q: %w", command, err)
	}
	var msg message
	select {
	case msg = <-answer:
	case <-ctx.Done():
		return fmt.Errorf("tell QEMU to %q: %w", command, ctx.Err())
	}
	switch {
	case msg.gone != nil:
		return fmt.Errorf("tell QEMU to %q: %w", command, msg.gone)
	case msg.Error != nil:
		return fmt.Errorf("tell QEMU to %q: %w", command, msg.Error)
	case result != nil:
		return json.Unmarshal(msg.Return, result)
	}
	return nil
}

func (m *monitor) send(command string, arguments any) (<-chan message, error) {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	m.write.Lock() // the order of writing is the order of waiting
	defer m.write.Unlock()
	m.mu.Lock()
	if m.closed != nil {
		defer m.mu.Unlock()
		return nil, m.closed
	}
	m.waiting = append(m.waiting, answer)
	m.mu.Unlock()
	if err := m.conn.SetWriteDeadline(time.Now().Add(monitorDeadline)); err != nil {
		return nil, err
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		m.conn.Close() // an answer may be missing now: the reader ends all that wait
		return nil, err
	}
	return answer, nil
}

// powerDown presses the power button.
func (m *monitor) powerDown(ctx context.Context) error {
	return m.call(ctx, "system_powerdown", nil, nil)
}

// status is the VM's run state.
func (m *monitor) status(ctx context.Context) (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := m.call(ctx, "query-status", nil, &s)
	return s.Status, err
}

// balloon asks the guest to keep to so many bytes.
func (m *monitor) balloon(ctx context.Context, bytes int64) error {
	return m.call(ctx, "balloon", map[string]int64{"value": bytes}, nil)
}
