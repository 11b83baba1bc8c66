// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/seed71221737/dev/engine/enginetest"
)

// counter stands between a tool and the engine and notes each call.
type counter struct {
	host  string
	mu    sync.Mutex
	calls []string
}

// newCounter listens on a socket of its own until the test ends.
func newCounter(t *testing.T, engine string) *counter {
	t.Helper()
	socket := strings.TrimPrefix(engine, "unix://")
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	proxy.FlushInterval = -1 // events come when they happen
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{host: "unix://" + path}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.calls = append(c.calls, r.Method+" "+r.URL.Path)
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	})}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) }) // ends with the server
	t.Cleanup(func() { _ = server.Close(); served.Wait() })
	return c
}

// take returns the calls since the last time.
func (c *counter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

// TestEngineCalls: what a no-op up asks of the engine does not grow with the project: one list each of containers, networks and volumes, and none of
// images, which the containers tell.
func TestEngineCalls(t *testing.T) {
	e := enginetest.Start(t)
	enginetest.BusyboxImage(t, e.Client(t), image)
	c := newCounter(t, e.Host)
	dev := devTool(t, c.host)
	const most = 3
	for _, n := range []int{1, 10} {
		dir := independent(t, n)
		dev.run(t, dir, "up", "-d")
		c.take()
		dev.run(t, dir, "up", "-d")
		if calls := c.take(); len(calls) > most {
			t.Errorf("no-op up of %d services: %d calls, want at most %d: %q", n, len(calls), most, calls)
		}
		dev.run(t, dir, "ps")
		if calls := c.take(); len(calls) > most {
			t.Errorf("ps of %d services: %d calls, want at most %d: %q", n, len(calls), most, calls)
		}
		dev.run(t, dir, "down", "-t", "0")
	}
}
