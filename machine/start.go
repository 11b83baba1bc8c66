// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// startPatience is longer than all stages of a start may take together, some of them twice; the agent's own deadlines come first and say more.
const startPatience = 40 * time.Minute

// Start starts the machine and waits until its engine answers. A machine that runs is no error; one that is starting is waited for. When ctx ends
// first, the machine goes on starting.
func (m *Machine) Start(ctx context.Context, sink Sink) error {
	begin := time.Now()
	phase, err := m.ensureAgent(ctx, sink)
	return m.goOn(ctx, phase, err, begin, sink)
}

// goOn brings a machine whose agent is in a phase, or has none because of an error, to where it runs.
func (m *Machine) goOn(ctx context.Context, phase hostagent.Phase, err error, begin time.Time, sink Sink) error {
	switch {
	case err != nil:
		return m.startError(err, "")
	case fromPhase(phase):
		return nil
	case isAsleep(phase):
		if err := m.wake(ctx, sink); err != nil {
			if m.agentDied(ctx, err) {
				err = errAgentDied
			}
			return m.startError(err, "")
		}
		sink.say(m.Name, "the machine runs after "+time.Since(begin).Round(100*time.Millisecond).String())
		return nil
	}
	return m.follow(ctx, sink, begin)
}

// ensureAgent sees to it that an agent runs and answers, and says in which phase it is.
func (m *Machine) ensureAgent(ctx context.Context, sink Sink) (hostagent.Phase, error) {
	unlock, err := m.store.lockMachine(ctx, m.Name, sink)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := m.reload(); err != nil {
		return "", err
	}
	if err := m.putRight(ctx, sink); err != nil {
		return "", err
	}
	if _, err := m.finishUpgrade(ctx, false, true, sink); err != nil {
		return "", err
	}
	return m.bringUp(ctx, sink)
}

// startLocked is Start for a command that holds the machine's lock to its end.
func (m *Machine) startLocked(ctx context.Context, sink Sink) error {
	begin := time.Now()
	phase, err := m.bringUp(ctx, sink)
	return m.goOn(ctx, phase, err, begin, sink)
}

// bringUp is ensureAgent under the lock.
func (m *Machine) bringUp(ctx context.Context, sink Sink) (hostagent.Phase, error) {
	status, err := m.settle(ctx, sink)
	if err != nil {
		return "", err
	}
	if status != nil {
		return status.Phase, nil
	}
	if err := m.usable(ctx); err != nil {
		return "", err
	}
	if err := m.clear(ctx, stopGrace, sink); err != nil {
		return "", err
	}
	text := "starting the machine"
	if state := m.Saved(); state != nil && state.Suspended {
		text = "resuming the machine"
	}
	sink.say(m.Name, text)
	return hostagent.Starting, m.launch(ctx)
}

func fromPhase(p hostagent.Phase) bool { return p == hostagent.Running || p == hostagent.Degraded }

// isAsleep says whether an agent has no VM, or is about to have none or another, and has to be asked for one.
func isAsleep(p hostagent.Phase) bool {
	return p == hostagent.Suspended || p == hostagent.Suspending || p == hostagent.Resuming
}

// settle waits for an agent that is on its way up or down. It returns the status of one that will serve, or nil when none runs. One that hangs is ended.
func (m *Machine) settle(ctx context.Context, sink Sink) (*hostagent.Status, error) {
	ask, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		status, err := m.Agent().Status(ask)
		if err == nil && (status.Phase == hostagent.Starting || fromPhase(status.Phase) || isAsleep(status.Phase)) {
			return status, nil
		}
		if err == nil {
			sink.say(m.Name, "waiting for the machine to stop")
			return nil, m.outwait(ctx)
		}
		runs, err := m.agentRuns(ctx)
		if err != nil || !runs {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ask.Done():
			sink.send(Event{Machine: m.Name, Warning: true, Text: "the host agent does not answer: it is replaced"})
			return nil, m.killAgent(ctx)
		case <-tick.C:
		}
	}
}

// outwait waits for an agent that is ending, and ends it if it does not.
func (m *Machine) outwait(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, endPatience+stopGrace)
	defer cancel()
	if err := m.awaitAgentEnd(wait); err != nil && ctx.Err() == nil {
		return m.killAgent(ctx)
	}
	return ctx.Err()
}

// reload reads the machine again, under its lock. The machine may have been removed meanwhile.
func (m *Machine) reload() error {
	now, err := m.store.Get(m.Name)
	if err != nil {
		return err
	}
	*m = *now
	return nil
}

// usable says whether the machine can be started on this host.
func (m *Machine) usable(ctx context.Context) error {
	if len(m.Problems) > 0 {
		return errors.Join(m.Problems...)
	}
	if err := m.Dir.checkSockets(); err != nil {
		return err
	}
	if err := m.store.Drivers[m.Spec.Driver].Check(ctx, m.Spec); err != nil {
		return &CheckError{Driver: m.Spec.Driver, Err: err}
	}
	return nil
}

// follow tells the stages of a start until the engine answers or the start failed.
func (m *Machine) follow(ctx context.Context, sink Sink, begin time.Time) error {
	wait, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	var last hostagent.Event
	var stage hostagent.Stage
	var cause string
	streamErr := m.Agent().Events(wait, func(e hostagent.Event) {
		if e.Stage != "" {
			stage = e.Stage
		}
		if e.Problem != nil {
			cause = e.Problem.Text
		}
		m.tell(sink, e)
		if e.Phase != "" && e.Phase != hostagent.Starting && !isAsleep(e.Phase) {
			last = e
			cancel()
		}
	})
	switch last.Phase {
	case hostagent.Running, hostagent.Degraded:
		sink.say(m.Name, "the machine is "+string(last.Phase)+" after "+time.Since(begin).Round(100*time.Millisecond).String())
		return nil
	case hostagent.Starting, "":
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for machine %q, which goes on starting: %w", m.Name, err)
		}
		return m.startError(m.endedWhileStarting(ctx, streamErr), stage)
	}
	if last.Text != "" && cause == "" {
		cause = last.Text
	}
	if cause == "" {
		cause = "the machine is " + string(last.Phase)
	}
	m.awaitFailed(ctx)
	return m.startError(errors.New(cause), stage)
}

// awaitFailed lets an agent whose start failed put its things away, so that the next command finds none of it.
func (m *Machine) awaitFailed(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	if err := m.awaitAgentEnd(wait); err != nil {
		m.store.Logger.Warn("wait for the end of a host agent whose start failed", "machine", m.Name, "error", err)
	}
}

// endedWhileStarting is the error of an event stream that ended before the start did.
func (m *Machine) endedWhileStarting(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the engine did not answer within %s", startPatience)
	}
	m.awaitFailed(ctx) // its last words are why
	_, log := m.said()
	return &agentEndedError{exit: errors.New("while the machine was starting"), lines: log}
}

// tell passes an event of the agent on.
func (m *Machine) tell(sink Sink, e hostagent.Event) {
	switch {
	case e.Phase == hostagent.Failed: // the error that Start returns says it
	case e.Problem != nil:
		sink.send(Event{Machine: m.Name, Stage: e.Stage, Warning: true, Text: e.Problem.Text, Hint: e.Problem.Hint})
	case e.Text != "" && e.Kind != "port":
		sink.send(Event{Machine: m.Name, Stage: e.Stage, Text: e.Text})
	case e.Kind == "stage":
		sink.send(Event{Machine: m.Name, Stage: e.Stage, Text: stageText[e.Stage]})
	}
}

// stageText says what is waited for in a stage.
var stageText = map[hostagent.Stage]string{
	hostagent.StageProcess:  "starting the VM",
	hostagent.StageLink:     "booting",
	hostagent.StageEngine:   "waiting for the engine",
	hostagent.StageShares:   "mounting shared folders",
	hostagent.StageForwards: "publishing sockets and ports",
}

// startError is a failed start with all that helps to understand it. Errors that say it all stay as they are.
func (m *Machine) startError(err error, stage hostagent.Stage) error {
	var check *CheckError
	var missing *NotFoundError
	var busy *BusyError
	var upgrade *UpgradeError
	var broken *BrokenError
	if errors.As(err, &broken) { // nothing was started that could have said anything
		return &StartError{Name: m.Name, Err: err, LogFile: m.Dir.AgentLog()}
	}
	if errors.As(err, &check) || errors.As(err, &missing) || errors.As(err, &busy) || errors.As(err, &upgrade) {
		return err
	}
	console, log := m.said()
	return &StartError{Name: m.Name, Stage: stage, Err: err, LogFile: m.Dir.AgentLog(), Console: console, Log: log}
}
