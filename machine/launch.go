// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/process"
)

const (
	// launchPatience is how long an agent may take from its start to its control socket.
	launchPatience = 60 * time.Second
	// answerPatience is how long a living agent may take to answer.
	answerPatience = 5 * time.Second
	// endPatience is how long an agent may take to end once its VM is off, or once it was killed.
	endPatience = 30 * time.Second
	// maxLog is the size at which a log is put aside when the agent starts.
	maxLog = 8 << 20
	// logLines is how many last lines an error carries.
	logLines = 12
)

// Agent is the client of the machine's host agent, which may not run.
func (m *Machine) Agent() *hostagent.Client { return hostagent.Dial(m.Dir.Control()) }

// launch starts the machine's agent and waits until it answers. The agent outlives this process.
func (m *Machine) launch(ctx context.Context) error {
	for _, log := range []string{m.Dir.AgentLog(), m.Dir.Console()} {
		if err := rotate(log); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(m.Dir.AgentLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the agent's log: %w", err)
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open the agent's log: %w", err)
	}
	m.logBegin, m.consoleBegin = begin, sizeOf(m.Dir.Console())
	command := m.agentCommand()
	cmd := exec.Command(command[0], command[1:]...) // not with ctx: the agent outlives this command
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = string(m.Dir), log, log, detached()
	cmd.Env = append(os.Environ(), m.store.Env...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the host agent: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the agent, or with this process
	return m.awaitAnswer(ctx, ended, begin)
}

// awaitAnswer waits for the agent's first answer; ended tells that it ended before.
func (m *Machine) awaitAnswer(ctx context.Context, ended <-chan error, logBegin int64) error {
	ctx, cancel := context.WithTimeout(ctx, launchPatience)
	defer cancel()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		_, err := m.Agent().Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case exit := <-ended:
			return m.agentEnded(exit, logBegin)
		case <-ctx.Done():
			return fmt.Errorf("wait for the host agent's first answer: %w", err)
		case <-tick.C:
		}
	}
}

// agentEnded says why an agent ended, from its log since begin.
func (m *Machine) agentEnded(exit error, begin int64) error {
	if exit == nil {
		exit = errors.New("it ended by itself")
	}
	return &agentEndedError{exit: exit, lines: lastLines(m.Dir.AgentLog(), begin, logLines)}
}

// agentEndedError is an agent that ended before it answered.
type agentEndedError struct {
	exit  error
	lines []string
}

func (e *agentEndedError) Error() string {
	text := "the host agent ended: " + e.exit.Error()
	if n := len(e.lines); n > 0 {
		text += ": " + plainLine(e.lines[n-1])
	}
	return text
}

// plainLine is what a line of the log says: an error as it was printed, or the message of a record.
func plainLine(line string) string {
	var record struct{ Msg, Problem, Error string }
	if json.Unmarshal([]byte(line), &record) != nil {
		return line
	}
	parts := slices.DeleteFunc([]string{record.Msg, record.Problem, record.Error}, func(s string) bool { return s == "" })
	return hostagent.Printable(strings.Join(parts, ": "))
}

func (e *agentEndedError) Unwrap() error { return e.exit }

// agentCommand is the command line that serves this machine.
func (m *Machine) agentCommand() []string { return append(slices.Clone(m.store.Agent), m.Name) }

// agentProcesses are the processes with the agent's command line.
func (m *Machine) agentProcesses(ctx context.Context) ([]process.Process, error) {
	want := m.agentCommand()[1:]
	return process.Find(ctx, func(args []string) bool { return slices.Equal(args[1:], want) })
}

// killAgent ends an agent that does not answer, known by its command line, and waits for the lock that it held.
func (m *Machine) killAgent(ctx context.Context) error {
	found, err := m.agentProcesses(ctx)
	if err != nil {
		return err
	}
	for _, p := range found {
		m.store.Logger.Warn("kill a host agent that does not answer", "machine", m.Name, "pid", p.PID)
		if err := p.Kill(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	if err := m.awaitAgentEnd(ctx); err != nil {
		return fmt.Errorf("end the host agent of machine %q: a process that is not known holds %q: %w", m.Name, m.Dir.RunLock(), err)
	}
	return nil
}

// said are the last lines of console and log since this process started the agent; of all times, where it did not.
func (m *Machine) said() (console, log []string) {
	return lastLines(m.Dir.Console(), m.consoleBegin, logLines), lastLines(m.Dir.AgentLog(), m.logBegin, logLines)
}

func sizeOf(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0 // there is none yet
	}
	return info.Size()
}

// rotate puts a log aside that has become large.
func rotate(name string) error {
	info, err := os.Stat(name)
	if err != nil || info.Size() < maxLog {
		return nil //nolint:nilerr // there is none yet; opening it says more
	}
	if err := os.Rename(name, name+".1"); err != nil {
		return fmt.Errorf("put a log aside: %w", err)
	}
	return nil
}

// lastLines reads the last lines of a file from an offset on; none if it cannot be read.
func lastLines(name string, from int64, n int) []string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	const most = 64 << 10
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-most)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimRight(hostagent.Printable(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}
