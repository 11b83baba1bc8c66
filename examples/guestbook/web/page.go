// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"html/template"
	"log"
	"net/http"
	"strings"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// store keeps entries.
type store interface {
	Entries(ctx context.Context) ([]entry, error)
	Add(ctx context.Context, author, message string) error
	Ping(ctx context.Context) error
}

// counter counts visits.
type counter interface {
	Next(ctx context.Context) (int64, error)
}

// newHandler serves the page and the health check of one replica.
func newHandler(replica string, s store, visits counter) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Ping(r.Context()); err != nil {
			fail(w, err)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/":
			http.NotFound(w, r)
		case r.Method == http.MethodPost:
			add(w, r, s)
		default:
			show(w, r, replica, s, visits)
		}
	})
	return mux
}

func show(w http.ResponseWriter, r *http.Request, replica string, s store, visits counter) {
	entries, err := s.Entries(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	n, err := visits.Next(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err = page.Execute(w, struct {
		Entries []entry
		Visits  int64
		Replica string
	}{entries, n, replica})
	if err != nil {
		log.Print(err)
	}
}

func add(w http.ResponseWriter, r *http.Request, s store) {
	author, message := strings.TrimSpace(r.FormValue("author")), strings.TrimSpace(r.FormValue("message"))
	if author == "" || message == "" {
		http.Error(w, "author and message are needed", http.StatusBadRequest)
		return
	}
	if err := s.Add(r.Context(), author, message); err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func fail(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}
