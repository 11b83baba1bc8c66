// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/seed71221737/dev/compose"
)

// sshEnv makes the test binary stand in for ssh: it carries its standard streams to the socket that the variable names.
const sshEnv = "DEV_TEST_SSH"

// actAsSSH does so, if asked to.
func actAsSSH() {
	socket := os.Getenv(sshEnv)
	if socket == "" {
		return
	}
	if !strings.Contains(strings.Join(os.Args, " "), "dial-stdio") {
		fmt.Fprintf(os.Stderr, "asked for %q\n", os.Args)
		os.Exit(2)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
	if err != nil {
		fmt.Fprintln(os.Stderr, "Permission denied (publickey).")
		os.Exit(255)
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.CloseWrite()
	}()
	_, _ = io.Copy(os.Stdout, conn)
	os.Exit(0)
}

// viaSSH puts a stand-in for ssh first in PATH.
func viaSSH(t *testing.T, socket string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for ssh is a shell script")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexport %s='%s'\nexec '%s' \"$@\"\n", sshEnv, socket, self)
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestOverSSH(t *testing.T) {
	f := projectFake(t)
	executes(f, 3, func(conn net.Conn, in io.Reader) {
		typed, _ := io.ReadAll(in)
		_, _ = conn.Write(message(1, "typed "+string(typed)))
	})
	viaSSH(t, strings.TrimPrefix(f.host, "unix://"))
	c := openClient(t, Options{Host: "ssh://me@far.test"})
	snap, err := c.Observe(t.Context(), wholeQuery)
	if err != nil || len(snap.Containers) != 2 {
		t.Fatalf("got %+v, %v", snap, err)
	}
	var out bytes.Buffer
	err = c.Exec(t.Context(), "x", ExecOptions{Command: []string{"cat"}, Streams: Streams{In: strings.NewReader("abc"), Out: &out}})
	if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 3 || out.String() != "typed abc" {
		t.Errorf("got %v, %q", err, &out)
	}
}

func TestSSHThatFails(t *testing.T) {
	viaSSH(t, filepath.Join(t.TempDir(), "none"))
	c := openClient(t, Options{Host: "ssh://me@far.test"})
	_, err := c.Observe(t.Context(), compose.Query{Project: "app"})
	e, ok := errors.AsType[*ConnectError](err)
	if !ok || !strings.Contains(e.Error(), "Permission denied (publickey)") || !strings.Contains(e.Hint(), "ssh me@far.test") {
		t.Errorf("got %v, hint %q", err, hintOf(err))
	}
}
