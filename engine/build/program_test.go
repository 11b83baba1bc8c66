// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build/wire"
)

func pack(t *testing.T, content string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	return w.EncodeAll([]byte(content), sum[:])
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUnpackProgram(t *testing.T) {
	dir := t.TempDir()
	packed := pack(t, "the program")
	name, err := unpackProgram(packed, dir)
	if err != nil || read(t, name) != "the program" {
		t.Fatal(name, err)
	}
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(name, []byte("something else"), 0o755); err != nil {
		t.Fatal(err)
	}
	if name, err = unpackProgram(packed, dir); err != nil || read(t, name) != "the program" {
		t.Errorf("an altered program is used: %v", err)
	}
	old := time.Now().Add(-2 * unused)
	if err := os.Chtimes(filepath.Dir(name), old, old); err != nil {
		t.Fatal(err)
	}
	next, err := unpackProgram(pack(t, "another version"), dir)
	if err != nil || next == name {
		t.Fatal(next, err)
	}
	if isFile(name) || !isFile(next) {
		t.Error("the old version is kept, or the new one is not")
	}
}

func TestUnpackProgramRefuses(t *testing.T) {
	good := pack(t, "the program")
	other := append(make([]byte, sha256.Size), good[sha256.Size:]...)
	for name, c := range map[string]struct {
		packed    []byte
		dir, want string
	}{
		"truncated":        {good[:len(good)-3], t.TempDir(), "unpack the build program"},
		"almost nothing":   {good[:5], t.TempDir(), "too few"},
		"another's digest": {other, t.TempDir(), "damaged"},
		"no folder":        {good, "", "DEV_HOME"},
	} {
		if _, err := unpackProgram(c.packed, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFindProgram(t *testing.T) {
	if len(embedded) > 0 {
		t.Skip("this test binary carries a program")
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "dev")
	_, err := findProgram(Options{Executable: exe})
	var missing *NoProgramError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), dir) || !strings.Contains(missing.Hint(), "cmd/dev-build") {
		t.Errorf("got %v", err)
	}
	beside := filepath.Join(dir, "bin", programName+exeSuffix())
	if err := errors.Join(os.MkdirAll(filepath.Dir(beside), 0o755), os.WriteFile(beside, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	if got, err := findProgram(Options{Executable: exe}); err != nil || got != beside {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := findProgram(Options{Executable: exe, Environ: []string{"DEV_BUILD_PROGRAM=" + exe + "x"}}); err == nil {
		t.Errorf("got %s, where DEV_BUILD_PROGRAM names nothing", got)
	}
}

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
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nhead -c 1 >/dev/null\necho out of memory >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := New(Options{Environ: []string{"DEV_BUILD_PROGRAM=" + program}})(nowhere{})
	for range 2 { // the second build starts it again
		_, err := b.Build(t.Context(), inline(t), func(any) {})
		if err == nil || !strings.Contains(err.Error(), program) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "out of memory") {
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
	program, err := wire.Accept(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	p := &process{session: session, backend: nowhere{}}
	registry := "r.test"
	for _, call := range []wire.Call{{Registry: &registry}, {Dial: &wire.Dial{Path: "/grpc"}}, {}} {
		go func() {
			if stream, err := session.AcceptStream(); err == nil {
				p.answer(t.Context(), stream)
			}
		}()
		stream, err := program.OpenStream()
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
		case call == wire.Call{} && err != io.EOF:
			t.Errorf("nothing: %+v, %v", got, err)
		}
		_ = stream.Close()
	}
}
