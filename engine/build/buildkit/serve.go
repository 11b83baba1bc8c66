// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package buildkit is the program that builds for dev: a client of the BuildKit inside the engine, in a process of its own.
//
// dev itself does not link BuildKit's client: with gRPC, protobuf and OpenTelemetry it would cost each run of each command milliseconds and
// megabytes, and only builds need it. The program is told what to build and asks for the rest through its standard input and output (package
// wire): connections to the engine and registry credentials come from dev; files, secrets and SSH agents it serves to BuildKit from this host.
// It prints nothing, and it ends when dev does.
package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/hashicorp/yamux"

	"github.com/seed71221737/dev/engine/build/wire"
)

// Main is the program; it returns its exit code. Only dev is meant to start it.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "dev-build is a part of dev, which starts it when images are built; it takes no arguments\n")
		return 2
	}
	if err := Serve(ctx, wire.Pipes{ReadCloser: os.Stdin, WriteCloser: os.Stdout}); err != nil {
		fmt.Fprintln(os.Stderr, "dev-build:", err)
		return 1
	}
	return 0
}

// Serve builds what is asked for on a connection until the other side or ctx ends it.
func Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	session, err := wire.Accept(conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	s := &server{session: session}
	var builds sync.WaitGroup
	for {
		stream, err := session.AcceptStream()
		if err != nil { // dev has ended, or wants us to
			cancel()
			builds.Wait()
			return s.close()
		}
		builds.Go(func() { s.serve(ctx, stream) })
	}
}

// serve does one build.
func (s *server) serve(ctx context.Context, stream *yamux.Stream) {
	defer stream.Close()
	var req wire.Request
	if err := wire.Read(stream, &req); err != nil {
		_ = wire.Write(stream, wire.Event{Failure: &wire.Failure{Text: err.Error()}})
		return
	}
	if req.Version != wire.Version {
		text := fmt.Sprintf("dev and its build program are of different versions: they speak %d and %d", req.Version, wire.Version)
		_ = wire.Write(stream, wire.Event{Failure: &wire.Failure{Text: text}})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the stream
		_, _ = io.Copy(io.Discard, stream) // nothing more is said: the end is the cancellation
		cancel()
	}()
	last := s.build(ctx, &req, func(status *wire.Status) { _ = wire.Write(stream, wire.Event{Status: status}) })
	_ = wire.Write(stream, last) // who is not there any more does not want it
}

// dial asks dev for a connection to the engine.
func (s *server) dial(ctx context.Context, path, proto string, meta map[string][]string) (net.Conn, error) {
	stream, _, err := s.call(ctx, wire.Call{Dial: &wire.Dial{Path: path, Proto: proto, Meta: meta}})
	return stream, err
}

// credentials asks dev for those of a registry.
func (s *server) credentials(ctx context.Context, registry string) (wire.Credentials, error) {
	stream, answer, err := s.call(ctx, wire.Call{Registry: &registry})
	if stream != nil {
		_ = stream.Close()
	}
	if answer.Credentials == nil {
		return wire.Credentials{}, err
	}
	return *answer.Credentials, err
}

// call asks dev for something and reads the answer. The stream is nil after an error; the answer may come with one.
func (s *server) call(ctx context.Context, c wire.Call) (net.Conn, wire.Answer, error) {
	stream, err := s.session.OpenStream()
	if err != nil {
		return nil, wire.Answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(past) })
	var answer wire.Answer
	err = errors.Join(wire.Write(stream, c), wire.Read(stream, &answer))
	if !stop() { // the deadline is or will be set
		err = errors.Join(err, context.Cause(ctx))
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		_ = stream.Close()
		return nil, answer, err
	}
	return stream, answer, nil
}
