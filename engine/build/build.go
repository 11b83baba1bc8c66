// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package build builds a service's image with the BuildKit inside the engine.
//
// A build's settings become a request, which is data and pure (request.go). It is solved by a program of its own, dev-build (package buildkit),
// because BuildKit's client costs every process that links it; the program is found or unpacked (package program) and started at the first build, is
// spoken to over its standard input and output (package wire), and ends with the builder. It asks back for what stays here: connections to the
// engine and registry credentials. All builds of one [engine.Client] share the program and may run side by side.
//
// The package never prints: progress is handed on as [*Status], for a renderer. It does not import cmd, machine or BuildKit.
package build

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build/wire"
	"github.com/seed71221737/dev/internal/program"
)

// What a build's progress tells, in the words of package wire.
type (
	// Status says what changed about a build's steps.
	Status = wire.Status
	// Step is a step of a build.
	Step = wire.Step
	// Part is something within a step, such as a layer that is fetched.
	Part = wire.Part
	// Log is output of a step.
	Log = wire.Log
)

// lastWords is how long a cancelled build may take to say how its steps ended.
const lastWords = 15 * time.Second

// builder implements [engine.Builder].
type builder struct {
	options program.Options
	backend engine.Backend

	mu      sync.Mutex
	process *process
}

var (
	_ engine.Builder = (*builder)(nil)
	_ engine.Checker = (*builder)(nil)
)

// New returns what makes a builder on an engine; it fits [engine.Options].NewBuilder. A builder does nothing until the first build.
// The program gets the environment of o, for its SSH_AUTH_SOCK.
func New(o program.Options) func(engine.Backend) engine.Builder {
	return func(b engine.Backend) engine.Builder { return &builder{options: o, backend: b} }
}

// Build implements [engine.Builder]. The detail it tells of is a [*Status]. An error of the build itself is an *[Error].
func (b *builder) Build(ctx context.Context, spec compose.BuildSpec, progress func(detail any)) (compose.Result, error) {
	req, err := newRequest(spec)
	if err != nil {
		return compose.Result{}, err
	}
	r, err := b.request(ctx, spec, req, progress)
	if err != nil {
		return compose.Result{}, err
	}
	return compose.Result{ID: r.ID, Warnings: r.Warnings}, nil
}

// Check implements [engine.Checker].
func (b *builder) Check(ctx context.Context, spec compose.BuildSpec) (engine.BuildCheck, error) {
	req, err := newRequest(spec)
	if err != nil {
		return engine.BuildCheck{}, err
	}
	req.Check = true
	r, err := b.request(ctx, spec, req, func(any) {})
	if err != nil {
		return engine.BuildCheck{}, err
	}
	return engine.BuildCheck{Report: r.Report, Flawed: r.Flawed}, nil
}

// request has the program do what is asked.
func (b *builder) request(ctx context.Context, spec compose.BuildSpec, req *wire.Request, progress func(detail any)) (*wire.Result, error) {
	process, err := b.start()
	if err != nil {
		return nil, fmt.Errorf("build the image of service %q: %w", spec.Service, err)
	}
	last, err := process.build(ctx, req, progress)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("build the image of service %q: %w", spec.Service, err)
	case last.Failure != nil:
		return nil, newError(spec.Service, last.Failure)
	}
	return last.Result, nil
}

// Close implements [engine.Builder].
func (b *builder) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == nil {
		return nil
	}
	err := b.process.close()
	b.process = nil
	return err
}

// start returns the running program; one that has ended is replaced.
func (b *builder) start() (*process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil && b.process.runs() {
		return b.process, nil
	}
	if b.process != nil {
		_ = b.process.close() // the builds that it took with it have told
		b.process = nil
	}
	name, err := program.Build().Find(b.options)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(name, b.options.Environ, b.backend)
	if err != nil {
		return nil, err
	}
	b.process = p
	return p, nil
}

// build has one request built and returns its last event, a result or a failure.
func (p *process) build(ctx context.Context, req *wire.Request, progress func(detail any)) (wire.Event, error) {
	stream, err := p.session.OpenStream()
	if err != nil {
		return wire.Event{}, p.ended(err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = stream.SetReadDeadline(time.Now().Add(lastWords))
		_ = stream.Close() // cancels the build; what it says of it can still be read
	})
	defer stop()
	if err := wire.Write(stream, req); err != nil {
		return wire.Event{}, p.ended(err)
	}
	for {
		var e wire.Event
		switch err := wire.Read(stream, &e); {
		case err != nil:
			return wire.Event{}, p.ended(err)
		case e.Status != nil:
			progress(e.Status)
		case e.Result != nil || e.Failure != nil:
			return e, nil
		}
	}
}

// isDir reports whether path is a folder; its error is the one to show when it is not there.
func isDir(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return info.IsDir(), nil
}

// isFile reports whether path is there and no folder.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
