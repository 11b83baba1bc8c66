// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"

	"github.com/seed71221737/dev/hostagent"
)

// TestNamedPipe serves the control API on a named pipe and reads it with the client, as a machine's commands do. It also runs under Wine
// (cmd's TestWine), whose pipes answer the first dial only while another one is open.
func TestNamedPipe(t *testing.T) {
	const path = `\\.\pipe\dev-test-named-pipe`
	l, err := listenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/status" {
			_ = json.NewEncoder(w).Encode(hostagent.Status{Version: 1, Machine: "box", Phase: hostagent.Running})
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if os.Getenv("DEV_TEST_WINE") == "" { // Wine leaves the listener waiting
			<-done
		}
	})
	if os.Getenv("DEV_TEST_WINE") != "" {
		patience := time.Second
		go func() {
			if conn, err := winio.DialPipe(path, &patience); err == nil {
				time.Sleep(10 * time.Second)
				_ = conn.Close()
			}
		}()
		time.Sleep(500 * time.Millisecond)
	}
	status, err := hostagent.Dial(path).Status(t.Context())
	if err != nil || status.Machine != "box" || status.Phase != hostagent.Running {
		t.Fatalf("status is %+v, %v", status, err)
	}
	if _, err := hostagent.Dial(`\\.\pipe\dev-test-nobody`).Status(t.Context()); err == nil {
		t.Error("a pipe that nobody serves answers")
	}
}
