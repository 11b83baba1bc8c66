// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// fakeEngine is an engine in memory, as strict as a real one: it refuses names and ports that are taken, networks that are gone, volumes in use.
// What a container does is told by its image's name: "job" ends with 0 at once, "bad" with 1, "sick" is never healthy. Health is what awaits make of it.
type fakeEngine struct {
	mu         sync.Mutex
	seq        int
	now        time.Time
	containers map[string]*fakeContainer // by ID
	networks   map[string]Network        // by name
	volumes    map[string]Volume
	images     map[string]Image

	contents map[string]string // of volumes that were filled
	lost     []string          // volumes removed
	log      []string          // operations carried out
	starting atomic.Int32
	raced    atomic.Bool // two starts that publish ranges overlapped
	fail     func(Op) error
}

type fakeContainer struct {
	Container
	spec ContainerSpec
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		now:        time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		containers: map[string]*fakeContainer{}, networks: map[string]Network{}, volumes: map[string]Volume{}, images: map[string]Image{},
		contents: map[string]string{},
	}
}

// id makes an ID of the engine's kind, never the same twice.
func (f *fakeEngine) id() string {
	f.seq++
	return fmt.Sprintf("%012x%052x", 0xc0ffee000000+f.seq, f.seq)
}

// provide makes the images of a project's services present.
func (f *fakeEngine) provide(p *types.Project) {
	for _, ref := range QueryFor(p).Images {
		if _, ok := f.images[ref]; !ok {
			f.images[ref] = Image{ID: "sha256:" + f.id(), Tagged: f.now}
		}
	}
}

func (f *fakeEngine) Observe(_ context.Context, q Query) (Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Snapshot{Now: f.now, Networks: map[string]Network{}, Volumes: map[string]Volume{}, Images: map[string]Image{}}
	for _, c := range f.containers {
		if c.Labels[LabelProject] == q.Project {
			s.Containers = append(s.Containers, f.observed(c))
		}
	}
	slices.SortFunc(s.Containers, func(a, b Container) int { return strings.Compare(a.Name, b.Name) })
	for name, n := range f.networks {
		if n.Labels[LabelProject] == q.Project || slices.Contains(q.Networks, name) {
			s.Networks[name] = n
		}
	}
	for name, v := range f.volumes {
		if v.Labels[LabelProject] == q.Project || slices.Contains(q.Volumes, name) {
			s.Volumes[name] = v
		}
	}
	for _, ref := range q.Images {
		if im, ok := f.images[ref]; ok {
			s.Images[ref] = im
		}
	}
	return s, nil
}

func (f *fakeEngine) observed(c *fakeContainer) Container {
	o := c.Container
	o.Labels, o.Networks, o.Mounts = maps.Clone(c.Labels), maps.Clone(c.Networks), slices.Clone(c.Mounts)
	o.Ports = nil
	if running(o) {
		o.Ports = ports(c.spec)
	}
	return o
}

func ports(spec ContainerSpec) []Port {
	var list []Port
	for port, bindings := range spec.Host.PortBindings {
		for _, b := range bindings {
			if first, last, ok := portRange(b.HostPort); ok && first == last {
				list = append(list, Port{HostPort: uint16(first), ContainerPort: port.Num(), Protocol: string(port.Proto())})
			}
		}
	}
	slices.SortFunc(list, func(a, b Port) int { return cmp.Compare(a.HostPort, b.HostPort) })
	return list
}

func (f *fakeEngine) Do(ctx context.Context, op Op, made Results, _ Sink) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if op.Kind == OpStartContainer && f.publishesRange(made.Resolve(op.Ref)) {
		if f.starting.Add(1) > 1 {
			f.raced.Store(true)
		}
		runtime.Gosched()
		defer f.starting.Add(-1)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(op); err != nil {
			return Result{}, err
		}
	}
	f.log = append(f.log, op.String())
	f.now = f.now.Add(time.Millisecond)
	switch op.Kind {
	case OpPullImage, OpBuildImage:
		return f.makeImage(op)
	case OpRemoveImage:
		delete(f.images, op.Image.Ref)
		return Result{}, nil
	case OpCreateNetwork, OpRemoveNetwork, OpCreateVolume, OpRemoveVolume:
		return f.doResource(op)
	case OpFillVolume:
		if _, ok := f.volumes[op.Ref.ID]; !ok {
			return Result{}, fmt.Errorf("volume %s is not there", op.Ref.ID)
		}
		f.contents[op.Ref.ID] = op.Content
		return Result{}, nil
	case OpCreateContainer:
		return f.create(op, made)
	}
	return f.doContainer(op, made)
}

func (f *fakeEngine) makeImage(op Op) (Result, error) {
	var ref string
	if op.Image != nil {
		ref = op.Image.Ref
	} else {
		ref = op.Build.Tags[0]
	}
	im := Image{ID: "sha256:" + f.id(), Tagged: f.now}
	f.images[ref] = im
	return Result{ID: im.ID}, nil
}

func (f *fakeEngine) doResource(op Op) (Result, error) {
	switch op.Kind {
	case OpCreateNetwork:
		n := Network{ID: "net" + f.id(), Name: op.Network.Name, Driver: op.Network.Driver, Labels: op.Network.Labels}
		if _, ok := f.networks[n.Name]; ok {
			return Result{}, fmt.Errorf("network %s exists", n.Name)
		}
		f.networks[n.Name] = n
		return Result{ID: n.ID}, nil
	case OpRemoveNetwork:
		for name, n := range f.networks {
			if n.ID != op.Ref.ID {
				continue
			}
			for _, c := range f.containers {
				if running(c.Container) && c.Networks[name] == n.ID {
					return Result{}, fmt.Errorf("network %s has active endpoints: %s", name, c.Name)
				}
			}
			delete(f.networks, name)
		}
		return Result{}, nil
	case OpCreateVolume:
		if _, ok := f.volumes[op.Volume.Name]; ok {
			return Result{}, fmt.Errorf("volume %s exists", op.Volume.Name)
		}
		f.volumes[op.Volume.Name] = Volume{Name: op.Volume.Name, Driver: op.Volume.Driver, Labels: op.Volume.Labels}
		return Result{ID: op.Volume.Name}, nil
	}
	for _, c := range f.containers {
		if mountsVolume(c.Container, op.Ref.ID) {
			return Result{}, fmt.Errorf("volume %s is in use by %s", op.Ref.ID, c.Name)
		}
	}
	f.lost = append(f.lost, op.Ref.ID)
	delete(f.volumes, op.Ref.ID)
	delete(f.contents, op.Ref.ID)
	return Result{}, nil
}

func (f *fakeEngine) byName(name string) *fakeContainer {
	for _, c := range f.containers {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (f *fakeEngine) create(op Op, made Results) (Result, error) {
	spec, err := op.Container.Resolve(made)
	if err != nil {
		return Result{}, err
	}
	if taken := f.byName(spec.Name); taken != nil {
		return Result{}, fmt.Errorf("name %s is taken", spec.Name)
	}
	im, ok := f.images[spec.Config.Image]
	if !ok {
		return Result{}, fmt.Errorf("no such image: %s", spec.Config.Image)
	}
	c := &fakeContainer{spec: spec}
	c.Container = Container{
		ID: f.id(), Name: spec.Name, Labels: maps.Clone(spec.Config.Labels), Image: spec.Config.Image, ImageID: im.ID, State: StateCreated,
		Created: f.now, Networks: map[string]string{},
	}
	if spec.Networks != nil {
		for name := range spec.Networks.EndpointsConfig {
			if _, ok := f.networks[name]; !ok {
				return Result{}, fmt.Errorf("network %s not found", name)
			}
			c.Networks[name] = "" // as engines have it before the first start
		}
	}
	for _, id := range shared(spec) {
		if _, ok := f.containers[id]; !ok {
			return Result{}, fmt.Errorf("no such container: %q", id)
		}
	}
	if err := f.mount(c); err != nil {
		return Result{}, err
	}
	f.containers[c.ID] = c
	return Result{ID: c.ID}, nil
}

// shared lists the containers that a container names in its namespaces and volumes_from.
func shared(spec ContainerSpec) []string {
	var list []string
	for _, mode := range []string{string(spec.Host.NetworkMode), string(spec.Host.IpcMode), string(spec.Host.PidMode)} {
		if id, ok := strings.CutPrefix(mode, "container:"); ok {
			list = append(list, id)
		}
	}
	for _, from := range spec.Host.VolumesFrom {
		id, _, _ := strings.Cut(from, ":")
		list = append(list, id)
	}
	return list
}

func (f *fakeEngine) mount(c *fakeContainer) error {
	add := func(name, target string) error {
		if name == "" {
			name = strings.Repeat("a", 52) + f.id()[:12]
			f.volumes[name] = Volume{Name: name}
		}
		if _, ok := f.volumes[name]; !ok {
			return fmt.Errorf("volume %s not found", name)
		}
		c.Mounts = append(c.Mounts, Mount{Type: "volume", Name: name, Destination: target})
		return nil
	}
	for _, m := range c.spec.Host.Mounts {
		if m.Type == "volume" {
			if err := add(m.Source, m.Target); err != nil {
				return err
			}
		}
	}
	for _, b := range c.spec.Host.Binds {
		source, target, _ := strings.Cut(b, ":")
		if strings.HasPrefix(source, "/") {
			continue
		}
		target, _, _ = strings.Cut(target, ":")
		if err := add(source, target); err != nil {
			return err
		}
	}
	for target := range c.spec.Config.Volumes {
		if err := add("", target); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeEngine) publishesRange(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return false
	}
	for _, bindings := range c.spec.Host.PortBindings {
		for _, b := range bindings {
			if strings.Contains(b.HostPort, "-") {
				return true
			}
		}
	}
	return false
}

func (f *fakeEngine) doContainer(op Op, made Results) (Result, error) {
	id := made.Resolve(op.Ref)
	c, ok := f.containers[id]
	if !ok {
		if op.Kind == OpRemoveContainer {
			return Result{}, nil
		}
		return Result{}, fmt.Errorf("%s: no such container %q", op, id)
	}
	switch op.Kind {
	case OpCopyFiles:
		return Result{}, nil
	case OpStartContainer:
		return Result{}, f.start(c)
	case OpRestartContainer:
		f.end(c, 137)
		return Result{}, f.start(c)
	case OpStopContainer, OpKillContainer:
		f.end(c, 137)
	case OpPauseContainer:
		c.State = StatePaused
	case OpUnpauseContainer:
		if c.State != StatePaused {
			return Result{}, fmt.Errorf("container %s is not paused", c.Name)
		}
		c.State = StateRunning
	case OpRunHook:
		if c.State != StateRunning {
			return Result{}, fmt.Errorf("container %s is not running", c.Name)
		}
	case OpRenameContainer:
		if other := f.byName(op.Name); other != nil && other != c {
			return Result{}, fmt.Errorf("name %s is taken by %s", op.Name, other.ID)
		}
		c.Name = op.Name
	case OpRemoveContainer:
		return Result{}, f.remove(c, op)
	default:
		return Result{}, fmt.Errorf("%s is not expected", op.Kind)
	}
	return Result{}, nil
}

func (f *fakeEngine) end(c *fakeContainer, code int) {
	if running(c.Container) {
		c.State, c.ExitCode, c.Health = StateExited, code, HealthNone
	}
}

func (f *fakeEngine) start(c *fakeContainer) error {
	if c.State == StateRunning || c.State == StateRestarting {
		return nil
	}
	if c.State != StateCreated && c.State != StateExited {
		return fmt.Errorf("container %s is %s", c.Name, c.State)
	}
	for name, id := range c.Networks {
		n, ok := f.networks[name]
		if !ok || id != "" && id != n.ID {
			return fmt.Errorf("container %s: network %s (%s) not found", c.Name, name, id)
		}
		c.Networks[name] = n.ID
	}
	for _, mine := range ports(c.spec) {
		for _, other := range f.containers {
			if running(other.Container) && slices.ContainsFunc(ports(other.spec), func(p Port) bool { return p.HostPort == mine.HostPort }) {
				return fmt.Errorf("container %s: port %d is taken by %s", c.Name, mine.HostPort, other.Name)
			}
		}
	}
	if id, ok := strings.CutPrefix(string(c.spec.Host.NetworkMode), "container:"); ok && (f.containers[id] == nil || !running(f.containers[id].Container)) {
		return fmt.Errorf("container %s: cannot join the network of a container that does not run", c.Name)
	}
	c.State, c.ExitCode = StateRunning, 0
	switch image, _, _ := strings.Cut(c.Image, ":"); image {
	case "job":
		f.end(c, 0)
	case "bad":
		f.end(c, 1)
	default:
		if c.spec.Config.Healthcheck != nil {
			c.Health = HealthStarting
		}
	}
	return nil
}

func (f *fakeEngine) remove(c *fakeContainer, op Op) error {
	if running(c.Container) && !op.Force {
		return fmt.Errorf("container %s is running", c.Name)
	}
	delete(f.containers, c.ID)
	for _, m := range c.Mounts {
		if op.Volumes && anonymousName.MatchString(m.Name) {
			f.lost = append(f.lost, m.Name)
			delete(f.volumes, m.Name)
		}
	}
	return nil
}

func (f *fakeEngine) Await(ctx context.Context, id string, condition Condition) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return &AwaitError{Container: id, Gone: true}
	}
	f.log = append(f.log, fmt.Sprintf("await container %s %s", c.Name, condition))
	failed := &AwaitError{
		Container: c.Name, Service: c.Service(), Condition: condition, State: c.State, ExitCode: c.ExitCode, Health: c.Health,
	}
	if c.State == StateRunning && c.spec.Config.Healthcheck != nil && condition != ConditionCompleted {
		c.Health = HealthHealthy
		if strings.HasPrefix(c.Image, "sick") {
			c.Health, failed.Health = HealthUnhealthy, HealthUnhealthy
			return failed
		}
	}
	r := replica{old: &c.Container}
	if !r.satisfies(condition) {
		return failed
	}
	return nil
}

// errKilled is what operations give once the process that asked for them is dead.
var errKilled = errors.New("killed")

// dyingEngine stands for a process that is killed after a number of operations. The last one is carried out or not, its answer is lost.
type dyingEngine struct {
	*fakeEngine
	left    atomic.Int32
	lastToo bool
}

func (d *dyingEngine) Do(ctx context.Context, op Op, made Results, sink Sink) (Result, error) {
	left := d.left.Add(-1)
	if left >= 0 || left == -1 && d.lastToo {
		r, err := d.fakeEngine.Do(ctx, op, made, sink)
		if left >= 0 {
			return r, err
		}
	}
	return Result{}, errKilled
}
