// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
)

// BenchmarkStatuses is what `dev machine ls` takes with 20 machines, 10 of them up and one with an agent that hangs.
func BenchmarkStatuses(b *testing.B) {
	dir, err := os.MkdirTemp("", "mch")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	s := openStore(dir)
	drivertest.Image(b, s.Images, "amd64", "test")
	b.Setenv(drivertest.StandInVariable, drivertest.StandInGood)
	for i := range 20 {
		m, err := s.Create(b.Context(), fmt.Sprintf("m%d", i), testSpec(), machine.CreateOptions{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if i > 10 {
			continue
		}
		l, err := net.Listen("unix", m.Dir.Control())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		if i == 10 {
			continue // connections wait in the queue for ever
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(hostagent.Status{Version: 1, Phase: hostagent.Running})
		})}
		go server.Serve(l)
		b.Cleanup(func() { server.Close() })
	}
	for b.Loop() {
		list, err := s.List()
		if err != nil || len(list) != 20 {
			b.Fatal(list, err)
		}
		up := 0
		for _, status := range machine.Statuses(context.Background(), list) {
			if status.Phase == machine.PhaseRunning {
				up++
			}
		}
		if up != 10 {
			b.Fatalf("%d machines are up", up)
		}
	}
}
