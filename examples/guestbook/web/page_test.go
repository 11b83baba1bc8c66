// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// memory is a store and a counter.
type memory struct {
	entries []entry
	visits  int64
	err     error
}

func (m *memory) Entries(context.Context) ([]entry, error) { return m.entries, m.err }
func (m *memory) Ping(context.Context) error               { return m.err }
func (m *memory) Next(context.Context) (int64, error)      { m.visits++; return m.visits, m.err }
func (m *memory) Add(_ context.Context, author, message string) error {
	m.entries = append(m.entries, entry{Author: author, Message: message})
	return m.err
}

func request(m *memory, method, path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	newHandler("one", m, m).ServeHTTP(w, r)
	return w
}

func TestSignAndShow(t *testing.T) {
	m := &memory{}
	w := request(m, http.MethodPost, "/", url.Values{"author": {"Ada"}, "message": {"<b>hello</b>"}})
	if w.Code != http.StatusSeeOther {
		t.Fatalf("sign: got %d %s", w.Code, w.Body)
	}
	w = request(m, http.MethodGet, "/", nil)
	for _, want := range []string{"<b>Ada</b>: &lt;b&gt;hello&lt;/b&gt;", "Visit 1, answered by replica one"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("page lacks %q:\n%s", want, w.Body)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		form               url.Values
		err                error
		code               int
	}{
		{"no message", http.MethodPost, "/", url.Values{"author": {"Ada"}, "message": {" "}}, nil, http.StatusBadRequest},
		{"no such page", http.MethodGet, "/none", nil, nil, http.StatusNotFound},
		{"no database", http.MethodGet, "/", nil, errors.New("down"), http.StatusServiceUnavailable},
		{"unhealthy", http.MethodGet, "/healthz", nil, errors.New("down"), http.StatusServiceUnavailable},
		{"healthy", http.MethodGet, "/healthz", nil, nil, http.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			if w := request(&memory{err: c.err}, c.method, c.path, c.form); w.Code != c.code {
				t.Errorf("got %d, want %d", w.Code, c.code)
			}
		})
	}
}
