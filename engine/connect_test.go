// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed71221737/dev/compose"
)

// expectConnectError checks that every way to an engine explains why there is none.
func expectConnectError(t *testing.T, o Options, reason, hint string) {
	t.Helper()
	c := openClient(t, o)
	_, observing := c.Observe(t.Context(), compose.Query{Project: "app"})
	_, doing := c.Do(t.Context(), compose.Op{Kind: compose.OpStartContainer, Ref: compose.Ref{ID: "x"}}, nil, compose.Discard)
	_, dialling := c.DialHijack(t.Context(), "/grpc", "h2c", nil)
	for name, err := range map[string]error{"ping": c.Ping(t.Context()), "observe": observing, "do": doing, "dial": dialling} {
		e, ok := errors.AsType[*ConnectError](err)
		if !ok {
			t.Errorf("%s: got %T: %v", name, err, err)
			continue
		}
		if !strings.Contains(e.Error(), fmt.Sprintf("%q", o.Host)) || !strings.Contains(e.Error(), reason) {
			t.Errorf("%s: got %v, want it to say %q", name, e, reason)
		}
		if !strings.Contains(e.Hint(), hint) {
			t.Errorf("%s: hint %q, want %q", name, e.Hint(), hint)
		}
	}
}

func TestConnectErrors(t *testing.T) {
	t.Run("no socket", func(t *testing.T) {
		o := Options{Host: "unix://" + filepath.Join(t.TempDir(), "none"), Source: "DOCKER_HOST"}
		expectConnectError(t, o, "(from DOCKER_HOST): there is no such socket", "dev engine start")
	})
	t.Run("nobody listens", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		_ = l.Close()
		expectConnectError(t, Options{Host: "unix://" + path}, "nobody answers", "dev engine start")
	})
	t.Run("tcp refused", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		expectConnectError(t, Options{Host: "tcp://" + l.Addr().String()}, "refuses the connection", "dev engine status")
	})
	t.Run("closes at once", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		}()
		defer func() { _ = l.Close(); <-done }()
		c := openClient(t, Options{Host: "unix://" + path})
		if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "closed the connection") {
			t.Errorf("got %v", err)
		}
	})
}

func TestConnectErrorsOfTLS(t *testing.T) {
	quiet := func() *httptest.Server {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		return s
	}
	plain, secure := quiet(), quiet()
	plain.Start()
	defer plain.Close()
	secure.StartTLS()
	defer secure.Close()
	for name, tt := range map[string]struct {
		server *httptest.Server
		tls    *tls.Config
		reason string
	}{
		"untrusted":        {secure, &tls.Config{}, "certificate is not trusted"},
		"server is plain":  {plain, &tls.Config{}, "does not speak TLS"},
		"server wants TLS": {secure, nil, "it wants TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			c := openClient(t, Options{Host: "tcp://" + tt.server.Listener.Addr().String(), TLS: tt.tls})
			_, err := c.Observe(t.Context(), compose.Query{Project: "app"})
			if e, ok := errors.AsType[*ConnectError](err); !ok || !strings.Contains(e.Reason, tt.reason) || e.Hint() == "" {
				t.Errorf("got %T: %v", err, err)
			}
		})
	}
}

func TestConnectReason(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		host         string
		err          error
		reason, hint string
	}{
		{"unix://" + dir, fmt.Errorf("dial: %w", fs.ErrPermission), "permission denied", "sudo"},
		{"tcp://nowhere.invalid:1", &net.DNSError{Name: "nowhere.invalid"}, `unknown host "nowhere.invalid"`, "dev engine status"},
		{"tcp://slow:1", context.DeadlineExceeded, "no answer in time", "reachable"},
		{"ssh://me@host", errors.New("exit status 255"), "exit status 255", "ssh me@host docker version"},
	}
	for _, tt := range tests {
		reason, hint := connectReason(tt.host, tt.err)
		if !strings.Contains(reason, tt.reason) || !strings.Contains(hint, tt.hint) {
			t.Errorf("%s: got %q, %q", tt.host, reason, hint)
		}
	}
}

func TestOpenChecksTheAddress(t *testing.T) {
	for host, want := range map[string]string{
		"": "needs a scheme", "/var/run/docker.sock": "needs a scheme", "ftp://x": `unknown scheme "ftp"`,
		"unix://": "needs a scheme", "ssh://": "needs a scheme",
	} {
		if _, err := Open(Options{Host: host}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", host, err)
		}
	}
	for _, host := range []string{"unix:///x", "tcp://h:1", "tcp://[::1]:2375", "http://h:1", "https://h:1", "ssh://me@h:22/run/s"} {
		if _, err := Open(Options{Host: host}); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	if _, err := Open(Options{Host: "unix:///x", Environ: []string{"DOCKER_API_VERSION=nonsense"}}); err == nil {
		t.Error("a malformed DOCKER_API_VERSION is accepted")
	}
}

func TestCancelledIsNoConnectError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := openClient(t, Options{Host: "unix://" + filepath.Join(t.TempDir(), "none")})
	if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestPinnedVersionIsKept(t *testing.T) {
	f := projectFake(t)
	c := openClient(t, Options{Host: f.host, Environ: []string{"DOCKER_API_VERSION=1.44"}})
	if _, err := c.Observe(t.Context(), compose.Query{Project: "app"}); err != nil {
		t.Fatal(err)
	}
	if v := c.api.Load().ClientVersion(); v != "1.44" {
		t.Errorf("version %s", v)
	}
}
