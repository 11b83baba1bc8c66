// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopBody is the body of a request to stop.
type stopBody struct {
	KeepContainers bool `json:"keep_containers"`
}

// peerKey is the key of the caller's user ID in a request's context.
type peerKey struct{}

// serveControl answers on the control socket. Everybody may read the state;
// only root may stop the engine.
func (s *supervisor) serveControl() (shut func(), err error) {
	s.update(func(r *Report) {
		r.Schema, r.PID, r.Since = reportSchema, os.Getpid(), time.Now()
		r.DataRoot, r.LiveRestore = s.Paths.Root, s.settings.LiveRestore
		if s.settings.DataRoot != "" {
			r.DataRoot = s.settings.DataRoot
		}
	})
	if err := remove(s.Paths.control()); err != nil { // the run lock is ours: a socket there is a dead one's
		return nil, err
	}
	l, err := net.Listen("unix", s.Paths.control())
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(s.Paths.control(), 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.handleStatus)
	mux.HandleFunc("GET /ready", s.handleReady)
	mux.HandleFunc("POST /stop", s.handleStop)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ConnContext: withPeer}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("control socket", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil { // lets the answer to a stop out; others are cut off
			_ = server.Close()
		}
		<-ended
	}, nil
}

// withPeer notes who calls.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid := -1
	if raw, err := c.(*net.UnixConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // on an error the caller stays nobody
			if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				uid = int(cred.Uid)
			}
		})
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

func (s *supervisor) handleStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s.state()); err != nil {
		s.Log.Debug("status not sent", "error", err)
	}
}

// handleReady answers when the API answers.
func (s *supervisor) handleReady(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.ready:
		w.WriteHeader(http.StatusNoContent)
	case <-s.ended:
		http.Error(w, "the engine did not start: `dev engine logs` says why", http.StatusServiceUnavailable)
	case <-r.Context().Done():
	}
}

// handleStop answers when the components have ended.
func (s *supervisor) handleStop(w http.ResponseWriter, r *http.Request) {
	if uid, _ := r.Context().Value(peerKey{}).(int); uid != os.Geteuid() && uid != 0 {
		http.Error(w, "only root may stop the engine", http.StatusForbidden)
		return
	}
	var body stopBody
	if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.abort(errAborted)
	request := stopRequest{keepContainers: body.KeepContainers, done: make(chan struct{})}
	select {
	case s.stop <- request:
	case <-s.ended: // it was starting, and gave up
		w.WriteHeader(http.StatusNoContent)
		return
	case <-r.Context().Done():
		return
	}
	select { // the stop goes on when its caller goes away
	case <-request.done:
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done():
	}
}

// controlClient talks to a supervisor.
type controlClient struct{ http http.Client }

func newControlClient(p Paths) *controlClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", p.control())
	}
	return &controlClient{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

func (c *controlClient) status(ctx context.Context) (Report, error) {
	var r Report
	body, err := c.do(ctx, http.MethodGet, "status", nil)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("read the supervisor's state: %w", err)
	}
	return r, nil
}

// waitReady waits until the API answers, or the supervisor ends.
func (c *controlClient) waitReady(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, "ready", nil)
	return err
}

// stop ends the engine and waits for its components.
func (c *controlClient) stop(ctx context.Context, keepContainers bool) error {
	body, err := json.Marshal(stopBody{KeepContainers: keepContainers})
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPost, "stop", body)
	return err
}

func (c *controlClient) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the engine's supervisor: %w", err)
	}
	defer resp.Body.Close() // read to its end below
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask the engine's supervisor: %w", err)
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("ask the engine's supervisor: %s", strings.TrimSpace(string(data)))
	}
	return data, nil
}
