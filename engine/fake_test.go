// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/seed71221737/dev/compose"
)

// fake is a Docker API on a unix socket that tests program. It counts calls, and refuses API versions that it is too old for, as engines do.
type fake struct {
	t       *testing.T
	host    string
	version string
	server  string // what it says it is; empty: an engine of another kind
	mux     *http.ServeMux

	mu    sync.Mutex
	calls []string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, version: client.MaxAPIVersion, mux: http.NewServeMux()}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f.host = "unix://" + socket
	s := httptest.NewUnstartedServer(f)
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	f.on("HEAD /_ping", func(http.ResponseWriter, *http.Request) {})
	return f
}

// on programs the answer to a route without its version, such as "GET /containers/{id}/json".
func (f *fake) on(route string, h http.HandlerFunc) { f.mux.HandleFunc(route, h) }

// reply programs a fixed answer.
func (f *fake) reply(route string, code int, body any) {
	f.on(route, func(w http.ResponseWriter, _ *http.Request) { answer(w, code, body) })
}

// answer writes a JSON answer; a string is an error's message.
func answer(w http.ResponseWriter, code int, body any) {
	if text, ok := body.(string); ok {
		body = map[string]string{"message": text}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body)
	}
}

var versionPrefix = regexp.MustCompile(`^/v(\d+\.\d+)(/.*)`)

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", f.version)
	w.Header().Set("Server", f.server)
	if m := versionPrefix.FindStringSubmatch(r.URL.Path); m != nil {
		r.URL.Path = m[2]
		if versions.GreaterThan(m[1], f.version) {
			answer(w, http.StatusBadRequest, "client version "+m[1]+" is too new. Maximum supported API version is "+f.version)
			return
		}
	}
	f.mu.Lock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	if _, pattern := f.mux.Handler(r); pattern == "" {
		answer(w, http.StatusNotFound, "no such thing: "+r.URL.Path)
		return
	}
	f.mux.ServeHTTP(w, r)
}

// called returns the calls so far, sorted.
func (f *fake) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.calls))
}

// count counts the calls of a route.
func (f *fake) count(call string) int {
	n := 0
	for _, c := range f.called() {
		if c == call {
			n++
		}
	}
	return n
}

func (f *fake) client() *Client {
	f.t.Helper()
	return openClient(f.t, Options{Host: f.host, Environ: []string{"HOME=" + f.t.TempDir()}})
}

func openClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// do carries out one operation and gathers its events.
func do(t *testing.T, c *Client, op compose.Op, made compose.Results) (compose.Result, []compose.Event, error) {
	t.Helper()
	var mu sync.Mutex
	var events []compose.Event
	r, err := c.Do(t.Context(), op, made, compose.SinkFunc(func(e compose.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}))
	return r, events, err
}

// hintOf is the hint that an error gives, if it does.
func hintOf(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok {
		return h.Hint()
	}
	return ""
}
