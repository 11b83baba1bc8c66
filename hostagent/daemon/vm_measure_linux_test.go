// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/hostagent"
)

var measureVM = flag.String("measure-vm", "", "append the figures of TestVMPorts to this file, as tables")

// wayCost is what a way into a container costs.
type wayCost struct {
	keep, fresh time.Duration // there and back, on a connection that is kept and on a new one
	down, up    float64       // MB/s from the container and to it
}

// agentCost is what a machine's host agent costs, and what depends on it.
type agentCost struct {
	appears, stop time.Duration // from the start of a container to its port, and of a machine to its end
	idle          float64       // share of one processor
	memory        uint64        // bytes
}

// portsTable compares a published port with the same server over SSH.
func portsTable(published, ssh wayCost) string {
	var b strings.Builder
	b.WriteString("\n## Ports\n\n| | published port | over SSH | ratio | aim |\n|---|---|---|---|---|\n")
	latency := func(name string, p, s time.Duration) {
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | 0.50 |\n", name, milliseconds(p), milliseconds(s), float64(p)/float64(s))
	}
	rate := func(name string, p, s float64) {
		fmt.Fprintf(&b, "| %s | %.1f MB/s | %.1f MB/s | %.1f | 3.0 |\n", name, p, s, p/s)
	}
	latency("kept connection, 64 bytes there and back", published.keep, ssh.keep)
	latency("new connection", published.fresh, ssh.fresh)
	rate("from the container", published.down, ssh.down)
	rate("to the container", published.up, ssh.up)
	return b.String()
}

// apiTable compares the Docker API in the machine with that at the host's socket; each is for a kept connection and a new one.
func apiTable(inside, outside [2]time.Duration) string {
	var b strings.Builder
	b.WriteString("\n## Docker API\n\n| `/_ping` | in the machine | at the host's socket | more | aim |\n|---|---|---|---|---|\n")
	for i, name := range []string{"kept connection", "new connection"} {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | 1.0 ms |\n", name, milliseconds(inside[i]), milliseconds(outside[i]), milliseconds(outside[i]-inside[i]))
	}
	return b.String()
}

func agentTable(c agentCost) string {
	return fmt.Sprintf("\n## Host agent\n\n| | | aim |\n|---|---|---|\n| from a container's start to its port on the host | %s | 100 ms |\n"+
		"| an orderly stop | %.1f s | 2 s |\n| processor at idle | %.2f %% | 0.50 %% |\n| memory | %d MB | 60 MB |\n",
		milliseconds(c.appears), c.stop.Seconds(), 100*c.idle, c.memory/1e6)
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func TestTables(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct{ table, row string }{
		{portsTable(wayCost{ms, 6 * ms, 22, 14}, wayCost{4 * ms, 50 * ms, 2, 7}), "| new connection | 6.0 ms | 50.0 ms | 0.12 | 0.50 |"},
		{portsTable(wayCost{ms, 6 * ms, 22, 14}, wayCost{4 * ms, 50 * ms, 2, 7}), "| from the container | 22.0 MB/s | 2.0 MB/s | 11.0 | 3.0 |"},
		{apiTable([2]time.Duration{ms, 2 * ms}, [2]time.Duration{3 * ms, 5 * ms}), "| new connection | 2.0 ms | 5.0 ms | 3.0 ms | 1.0 ms |"},
		{agentTable(agentCost{40 * ms, 700 * ms, 0.0005, 42e6}), "| processor at idle | 0.05 % | 0.50 % |"},
	} {
		if !strings.Contains(c.table, c.row+"\n") {
			t.Errorf("no row %q in %s", c.row, c.table)
		}
	}
}

// report logs a table, and appends it to the file that was asked for.
func report(t testing.TB, table string) {
	t.Helper()
	t.Log(table)
	if *measureVM == "" {
		return
	}
	f, err := os.OpenFile(*measureVM, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(table); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// freeLoopback is a port that is free now.
func freeLoopback(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int(netip.MustParseAddrPort(l.Addr().String()).Port())
}

// appears is how long after the engine said that a container has started its port is served on the host.
func (r *running) appears(c *client.Client) time.Duration {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), vmPatience)
	defer cancel()
	begun, opened, followed := make(chan struct{}, 1), make(chan time.Time, 1), make(chan struct{})
	go func() {
		defer close(followed)
		_ = r.client.Events(ctx, func(e hostagent.Event) {
			select {
			case begun <- struct{}{}:
			default:
			}
			if e.Kind == "port" && e.Text == "open" {
				select {
				case opened <- time.Now():
				default:
				}
			}
		})
	}()
	defer func() { cancel(); <-followed }()
	<-begun
	port := api.PortBinding{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(freeLoopback(r.t))}
	r.container(c, "appears", api.PortMap{api.MustParsePort("7/tcp"): {port}})
	started := time.Now() // the engine has answered
	select {
	case at := <-opened:
		return max(0, at.Sub(started))
	case <-ctx.Done():
		r.t.Error("the port does not appear")
		return -1
	}
}

// idle is what the agent costs while its machine is left alone.
func (r *running) idle(watch time.Duration) (share float64, memory uint64) {
	r.t.Helper()
	metrics := func() *hostagent.Metrics {
		m, err := r.client.Metrics(context.Background())
		if err != nil {
			r.t.Fatal(err)
		}
		return m
	}
	before := metrics()
	<-time.After(watch)
	after := metrics()
	return float64(after.CPU-before.CPU) / float64(watch), after.MemoryBytes
}

// stop is how long an orderly end takes.
func (r *running) stop() time.Duration {
	r.t.Helper()
	began := time.Now()
	if err := r.client.Stop(context.Background(), vmPatience); err != nil {
		r.t.Fatal(err)
	}
	select {
	case err := <-r.ended:
		r.ended <- err
	case <-time.After(vmPatience):
		r.t.Error("it does not stop")
	}
	return time.Since(began)
}
