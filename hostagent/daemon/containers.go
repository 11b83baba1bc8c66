// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// A machine that is stopped with its memory has no containers in it: they were stopped one after the other, as an engine that ends does. The engine itself
// does not end, and so would not start again what has a restart policy; the agent does, by the engine's own rules. What is to be started is in a file before
// the first container is stopped, so that no crash and no cold boot in between changes it.

// Labels that say what containers need and who else looks after them.
const (
	labelProject   = "com.docker.compose.project"
	labelService   = "com.docker.compose.service"
	labelDependsOn = "com.docker.compose.depends_on"
	labelTask      = "com.docker.swarm.task.id"
)

// containersFile is the file of containers to start again.
type containersFile struct {
	Version    int           `json:"version"` // 1
	Containers []toStartItem `json:"containers"`
}

// toStartItem is one container to start again, in order of starting.
type toStartItem struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Wave orders them: those of one are started side by side.
	Wave int `json:"wave,omitempty"`
}

// stopAtOnce is how many containers are stopped, or started, side by side.
const stopAtOnce = 8

// stopContainers has no more containers started, notes which are to be started again, and stops those that run: what depends on others first, each with its own time.
func (a *agent) stopContainers(ctx context.Context, l *life) error {
	if err := l.endStarts(ctx); err != nil {
		return err
	}
	list, err := a.engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	var running []container.Summary
	for _, c := range list.Items {
		if c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting {
			if c.Labels[labelTask] != "" {
				return errors.New("its engine runs tasks of a swarm, which would start them elsewhere")
			}
			running = append(running, c)
		}
	}
	wanted, err := a.wantedAgain(ctx, list.Items)
	if err != nil {
		return err
	}
	if err := a.noteContainers(wanted); err != nil {
		return err
	}
	for _, wave := range stopWaves(running) {
		if err := each(ctx, wave, a.stopContainer); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) stopContainer(ctx context.Context, c container.Summary) error {
	if c.State == container.StatePaused {
		if _, err := a.engine.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{}); err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
			return fmt.Errorf("stop container %q: %w", nameOf(c), err)
		}
	}
	if _, err := a.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{}); err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("stop container %q: %w", nameOf(c), err)
	}
	return nil
}

// each does f for every item, some side by side, and returns what failed.
func each[T any](ctx context.Context, items []T, f func(context.Context, T) error) error {
	var all sync.WaitGroup
	errs, slots := make([]error, len(items)), make(chan struct{}, stopAtOnce)
	for i, item := range items {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(ctx, item)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func nameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// stopWaves are containers in the order in which they are stopped: each wave holds those on which no later one depends. What depends on itself in a circle comes
// last, together.
func stopWaves(list []container.Summary) [][]container.Summary {
	left := slices.SortedFunc(slices.Values(list), func(a, b container.Summary) int { return cmp.Compare(nameOf(a), nameOf(b)) })
	var waves [][]container.Summary
	for len(left) > 0 {
		needed := map[string]bool{}
		for _, c := range left {
			for _, service := range dependencies(c) {
				needed[c.Labels[labelProject]+"/"+service] = true
			}
		}
		var wave, rest []container.Summary
		for _, c := range left {
			if needed[c.Labels[labelProject]+"/"+c.Labels[labelService]] && c.Labels[labelService] != "" {
				rest = append(rest, c)
			} else {
				wave = append(wave, c)
			}
		}
		if len(wave) == 0 {
			wave, rest = rest, nil
		}
		waves, left = append(waves, wave), rest
	}
	return waves
}

// dependencies are the services of its project that a container depends on.
func dependencies(c container.Summary) []string {
	var names []string
	for entry := range strings.SplitSeq(c.Labels[labelDependsOn], ",") {
		if name, _, _ := strings.Cut(entry, ":"); name != "" && name != c.Labels[labelService] {
			names = append(names, name)
		}
	}
	return names
}

// wantedAgain are the containers that an engine which ends and starts would have a look at, in order of starting.
func (a *agent) wantedAgain(ctx context.Context, list []container.Summary) ([]toStartItem, error) {
	var candidates []*toStartItem
	for wave, members := range slices.Backward(stopWaves(list)) {
		for _, c := range members {
			candidates = append(candidates, &toStartItem{ID: c.ID, Name: nameOf(c), Wave: -wave})
		}
	}
	err := each(ctx, candidates, func(ctx context.Context, c *toStartItem) error {
		r, err := a.engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if err != nil && !cerrdefs.IsNotFound(err) {
			return fmt.Errorf("look at container %q: %w", c.Name, err)
		}
		if err != nil || !mayRestart(r.Container) {
			c.ID = ""
		}
		return nil
	})
	var wanted []toStartItem
	for _, c := range candidates {
		if c.ID != "" {
			wanted = append(wanted, *c)
		}
	}
	return wanted, err
}

// mayRestart says whether an engine that starts would start this container, judged before it is stopped: always, unless it was never started;
// unless-stopped, when it has not been stopped; on-failure depends on how it ends, see restartsNow.
func mayRestart(c container.InspectResponse) bool {
	if c.HostConfig == nil || c.State == nil || neverStarted(c) {
		return false
	}
	runs := c.State.Running || c.State.Restarting || c.State.Paused
	switch c.HostConfig.RestartPolicy.Name {
	case container.RestartPolicyAlways, container.RestartPolicyOnFailure:
		return true
	case container.RestartPolicyUnlessStopped:
		return runs
	}
	return false
}

// neverStarted: the engine writes the zero time then.
func neverStarted(c container.InspectResponse) bool {
	return c.State.StartedAt == "" || strings.HasPrefix(c.State.StartedAt, "0001-")
}

// restartsNow says whether a container that was noted is started now.
func restartsNow(c container.InspectResponse) bool {
	if c.HostConfig == nil || c.State == nil || c.State.Running || c.State.Restarting || c.State.Dead {
		return false
	}
	p := c.HostConfig.RestartPolicy
	switch p.Name {
	case container.RestartPolicyAlways, container.RestartPolicyUnlessStopped:
		return true
	case container.RestartPolicyOnFailure:
		return c.State.ExitCode != 0 && (p.MaximumRetryCount == 0 || c.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// noteContainers writes what is to be started again. What an earlier stop noted and no start has done is kept.
func (a *agent) noteContainers(wanted []toStartItem) error {
	noted, err := a.notedContainers()
	if err != nil {
		a.log.Warn("read the containers to start", "error", err) // it is written anew
	}
	for _, c := range noted {
		if !slices.ContainsFunc(wanted, func(w toStartItem) bool { return w.ID == c.ID }) {
			wanted = append(wanted, c)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return a.writeContainers(wanted)
}

// writeContainers writes the list of what is to be started again.
func (a *agent) writeContainers(wanted []toStartItem) error {
	if len(wanted) == 0 {
		return removeIfThere(a.o.Containers)
	}
	data, err := json.MarshalIndent(containersFile{Version: 1, Containers: wanted}, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(a.o.Containers, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("note the containers to start again: %w", err)
	}
	return nil
}

// notedContainers reads what is to be started again.
func (a *agent) notedContainers() ([]toStartItem, error) {
	data, err := os.ReadFile(a.o.Containers)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f containersFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read %q: %w", a.o.Containers, err)
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("read %q: its version is %d", a.o.Containers, f.Version)
	}
	return f.Containers, nil
}

// startContainers starts again what the last stop has ended. What cannot be started is told, as the engine's log would, and tried again at the next start: to
// the engine it is a container that was stopped on purpose.
func (a *agent) startContainers(ctx context.Context) {
	noted, err := a.notedContainers()
	if err != nil {
		a.state.say("the containers that ran before the last stop are not started again: " + err.Error())
	}
	if len(noted) == 0 {
		return
	}
	release, err := a.awake(ctx)
	if err != nil {
		return // the next life does it
	}
	defer release()
	slices.SortStableFunc(noted, func(c, d toStartItem) int { return cmp.Compare(c.Wave, d.Wave) })
	var failed failedItems
	for len(noted) > 0 { // what others depend on comes first
		next := slices.IndexFunc(noted, func(c toStartItem) bool { return c.Wave != noted[0].Wave })
		if next < 0 {
			next = len(noted)
		}
		err := each(ctx, noted[:next], func(ctx context.Context, c toStartItem) error { return failed.note(c, a.startAgain(ctx, c)) })
		if ctx.Err() != nil {
			return // all stay noted
		}
		if err != nil {
			a.state.say(err.Error())
		}
		noted = noted[next:]
	}
	if err := a.writeContainers(failed.list); err != nil {
		a.log.Warn("note which containers are started", "error", err)
	}
}

// failedItems are containers that could not be started.
type failedItems struct {
	mu   sync.Mutex
	list []toStartItem
}

// note adds a container if there is an error, and returns that.
func (f *failedItems) note(c toStartItem, err error) error {
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.list = append(f.list, c)
	}
	return err
}

func (a *agent) startAgain(ctx context.Context, c toStartItem) error {
	r, err := a.engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	if err == nil && restartsNow(r.Container) {
		_, err = a.engine.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
	}
	if err != nil {
		return fmt.Errorf("container %q is not started again: %w", c.Name, err)
	}
	return nil
}
