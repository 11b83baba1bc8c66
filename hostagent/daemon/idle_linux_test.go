// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// crowdVariable has this program be the crowd of a test: its value is the address.
const crowdVariable = "DEV_TEST_CROWD"

// needFiles skips the test where a process may not have n files open. (Go raises the limit as far as it may by itself.)
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < n {
		t.Skipf("needs %d open files, and may have %d (%v)", n, limit.Cur, err)
	}
}

// serveEchoes answers many connections at a place in the guest, with little memory for each.
func (m *fakeMachine) serveEchoes(at netip.AddrPort) {
	m.t.Helper()
	l, err := m.vm.guest.Listen(at)
	if err != nil {
		m.t.Fatal(err)
	}
	var all sync.WaitGroup
	m.t.Cleanup(all.Wait)
	m.t.Cleanup(func() { l.Close() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				for b := make([]byte, 1); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			})
		}
	})
}

// answers says whether a byte comes back.
func answers(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// crowd is a process that holds connections open: the test's own could not have both ends of them within usual limits of open files.
type crowd struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// startCrowd opens connections that have answered once and are idle from then on.
func startCrowd(t *testing.T, address string, count int) *crowd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crowdVariable+"="+address, crowdVariable+"_COUNT="+strconv.Itoa(count))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &crowd{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	c.expect("open")
	return c
}

func (c *crowd) expect(want string) {
	c.t.Helper()
	if !c.out.Scan() || c.out.Text() != want {
		c.t.Fatalf("the crowd says %q (%v), want %q", c.out.Text(), c.out.Err(), want)
	}
}

// ask has some of the connections used again.
func (c *crowd) ask() {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "again\n"); err != nil {
		c.t.Fatal(err)
	}
	c.expect("answered")
}

// leave ends all connections.
func (c *crowd) leave() {
	c.t.Helper()
	_ = c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Error(err)
	}
}

// beCrowd is the crowd's process.
func beCrowd(address string) error {
	count, err := strconv.Atoi(os.Getenv(crowdVariable + "_COUNT"))
	if err != nil {
		return err
	}
	conns, errs := make([]net.Conn, count), make([]error, 8)
	var all sync.WaitGroup
	for first := range errs {
		all.Go(func() {
			for i := first; i < count && errs[first] == nil; i += len(errs) {
				if conns[i], errs[first] = net.Dial("tcp", address); errs[first] == nil {
					errs[first] = answers(conns[i])
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println("open")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		for _, c := range []net.Conn{conns[0], conns[count/2], conns[count-1]} {
			if err := answers(c); err != nil {
				return err
			}
		}
		fmt.Println("answered")
	}
	return nil
}

func memoryInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestManyIdleConnections holds ten thousand connections to a published port open: they cost little, one more is served as the first, and nothing is left of
// them. It does not run with the race detector, which bears no more than 8128 goroutines.
func TestManyIdleConnections(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("opens ten thousand connections")
	}
	const count = 10_000
	needFiles(t, count+500)
	m := newFakeMachine(t)
	m.run()
	port := freePort(t, "tcp", "127.0.0.1")
	m.serveEchoes(netip.AddrPortFrom(m.at.Loopback, number(t, port)))
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	before := m.await("the port", func(s *hostagent.Status) bool { return len(s.Ports) == 1 && s.Ports[0].Problem == "" })
	memory := memoryInUse()

	c := startCrowd(t, "127.0.0.1:"+port, count)
	m.await("the connections to be counted", func(s *hostagent.Status) bool {
		return s.Metrics.Connections >= before.Metrics.Connections+count
	})
	each := (memoryInUse() - memory) / count
	t.Logf("%d bytes for each idle connection, with the fake guest's half", each)
	if each > 64<<10 {
		t.Errorf("an idle connection costs %d KiB", each>>10)
	}
	further, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(answers(further), further.Close()); err != nil {
		t.Error(err)
	}
	c.ask()
	c.leave()
	m.await("the connections to be gone", func(s *hostagent.Status) bool { return s.Metrics.Connections <= before.Metrics.Connections })
}
