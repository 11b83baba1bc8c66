// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// order is what somebody wants of the machine.
type order struct {
	kill  bool
	cold  bool          // leave no memory behind
	grace time.Duration // 0: the default
}

// serveControl serves the control socket until the agent ends.
func (a *agent) serveControl() error {
	l, err := listenLocal(a.o.Control)
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, a.status()) })
	mux.HandleFunc("GET /v1/metrics", func(w http.ResponseWriter, _ *http.Request) { answer(w, a.metrics()) })
	mux.HandleFunc("GET /v1/health", func(w http.ResponseWriter, r *http.Request) { answer(w, a.health(r.Context())) })
	mux.HandleFunc("GET /v1/events", a.serveEvents)
	mux.HandleFunc("POST /v1/copy-disk", a.serveCopyDisk)
	mux.HandleFunc("POST /v1/grow-disk", a.serveGrowDisk)
	mux.HandleFunc("POST /v1/stop", func(w http.ResponseWriter, r *http.Request) {
		grace, err := time.ParseDuration(r.URL.Query().Get("grace"))
		if err != nil || grace < 0 {
			http.Error(w, "the grace is not a duration", http.StatusBadRequest)
			return
		}
		a.give(order{grace: grace, cold: r.URL.Query().Get("cold") == "1"})
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST /v1/suspend", a.serveRequest(true))
	mux.HandleFunc("POST /v1/resume", a.serveRequest(false))
	mux.HandleFunc("POST /v1/kill", func(w http.ResponseWriter, _ *http.Request) {
		a.give(order{kill: true})
		w.WriteHeader(http.StatusAccepted)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	a.work.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the control socket ended", "error", err)
		}
	})
	a.onClose("control socket", func() error {
		a.state.close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil { // somebody does not read
			return server.Close()
		}
		return nil
	})
	return nil
}

// give hands an order to the agent; one that is given already is enough, except that a kill overtakes. Who asks from now on learns that the machine
// stops, though the agent may not have begun with it.
func (a *agent) give(o order) {
	a.state.enter(hostagent.Stopping, "")
	into := a.orders
	if o.kill {
		into = a.kills
	}
	select {
	case into <- o:
	default:
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}

// serveEvents streams events as JSON lines until the agent or the client ends.
func (a *agent) serveEvents(w http.ResponseWriter, r *http.Request) {
	watcher := a.state.watch()
	defer a.state.unwatch(watcher)
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-watcher.events:
			if !ok || lines.Encode(e) != nil || flush.Flush() != nil {
				return
			}
		}
	}
}

func (a *agent) status() hostagent.Status {
	s := a.state.snapshot()
	s.Metrics = a.metrics()
	return s
}

// metrics are the agent's own figures now.
func (a *agent) metrics() *hostagent.Metrics {
	m := &hostagent.Metrics{ClockOffset: time.Duration(a.clockOffset.Load())}
	m.MemoryBytes, m.CPU = usage()
	if n := a.net.Load(); n != nil {
		m.Connections = n.Connections()
		m.Received, m.Sent = n.Traffic()
	}
	return m
}

// health asks the guest, and adds what the agent knows.
func (a *agent) health(ctx context.Context) []hostagent.Problem {
	problems := []hostagent.Problem{}
	problems = append(problems, a.state.snapshot().Problems...)
	switch a.state.snapshot().Phase {
	case hostagent.Suspending, hostagent.Suspended:
		return problems // it need not wake for this
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	h, err := a.link.health(ctx)
	if err != nil {
		return append(problems, hostagent.Problem{Code: "guest-silent", Text: hostagent.Printable(fmt.Sprintf("the machine does not answer: %v", err)), Hint: "see `dev machine logs --console " + a.o.Machine + "`"})
	}
	if !h.Engine {
		problems = append(problems, hostagent.Problem{Code: "engine-silent", Text: "the engine does not answer", Hint: "see `dev machine logs " + a.o.Machine + "`"})
	}
	for _, text := range h.Problems {
		problems = append(problems, hostagent.Problem{Code: "guest", Text: hostagent.Printable(text)})
	}
	for _, text := range h.Warnings {
		problems = append(problems, hostagent.Problem{Code: "guest-warning", Text: hostagent.Printable(text)})
	}
	return problems
}
