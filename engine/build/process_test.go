// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build/wire"
	"github.com/seed71221737/dev/internal/program"
)

// nowhere is a backend that connects to nothing.
type nowhere struct{}

func (nowhere) DialHijack(context.Context, string, string, map[string][]string) (net.Conn, error) {
	return nil, errors.New("not connected")
}

func (nowhere) RegistryAuth(string) (engine.Credentials, error) { return engine.Credentials{}, nil }

func TestProgramThatDies(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the program is a shell script")
	}
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nhead -c 1 >/dev/null\necho out of memory >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := New(program.Options{Environ: []string{"DEV_BUILD_PROGRAM=" + file}})(nowhere{})
	for range 2 { // the second build starts it again
		_, err := b.Build(t.Context(), inline(t), func(any) {})
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "out of memory") {
			t.Errorf("got %v", err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func inline(t *testing.T) compose.BuildSpec {
	s := compose.BuildSpec{Service: "web"}
	s.Config.Context, s.Config.DockerfileInline = t.TempDir(), "FROM scratch"
	return s
}

// TestAnswers lets a program ask for what it may ask.
func TestAnswers(t *testing.T) {
	ours, theirs := net.Pipe()
	session, err := wire.Open(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	peer, err := wire.Accept(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	p := &process{session: session, backend: nowhere{}}
	registry := "r.test"
	for _, call := range []wire.Call{{Registry: &registry}, {Dial: &wire.Dial{Path: "/grpc"}}, {}} {
		go func() {
			if stream, err := session.AcceptStream(); err == nil {
				p.answer(t.Context(), stream)
			}
		}()
		stream, err := peer.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.Write(stream, call); err != nil {
			t.Fatal(err)
		}
		var got wire.Answer
		switch err := wire.Read(stream, &got); {
		case call.Registry != nil && (err != nil || got.Error != "" || got.Credentials == nil):
			t.Errorf("credentials: %+v, %v", got, err)
		case call.Dial != nil && (err != nil || got.Error != "not connected"):
			t.Errorf("dial: %+v, %v", got, err)
		case call == wire.Call{} && !errors.Is(err, io.EOF):
			t.Errorf("nothing: %+v, %v", got, err)
		}
		_ = stream.Close()
	}
}
