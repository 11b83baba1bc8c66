// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The control protocol's version, and the oldest that is still spoken.
const (
	Version    = 1
	MinVersion = 1
)

// Subsystem is the SSH subsystem that speaks the control protocol.
const Subsystem = "dev-control"

// MaxMessage bounds one message in bytes.
const MaxMessage = 4 << 20

// Methods of the control protocol. Params and results are the types named.
const (
	MethodInfo     = "info"     // none → Info
	MethodHealth   = "health"   // none → Health
	MethodSetTime  = "set-time" // SetTime → none
	MethodPorts    = "ports"    // none → []Port
	MethodMount    = "mount"    // Mount → none
	MethodUnmount  = "unmount"  // Unmount → Unmounted
	MethodReplace  = "replace"  // Replace → Replaced: what containers have of a mount that is dead
	MethodStale    = "stale"    // Stale → none: files of a mount have changed on the host
	MethodTrim     = "trim"     // none → Trim
	MethodMemory   = "memory"   // MemoryRequest → Memory
	MethodPressure = "pressure" // PressureRequest → Pressure: answered when memory is short, or when the time is over
	MethodGrow     = "grow"     // Grow → Disk: the data disk has been made larger
	MethodPowerOff = "power-off"
	MethodReboot   = "reboot"
	MethodLogs     = "logs"          // LogsRequest → Logs
	MethodFreeze   = "before-save"   // none → none: the machine's memory is about to be saved
	MethodThaw     = "after-restore" // AfterRestore → AfterRestored: it has been restored, maybe much later
)

// Hello is the first message of each side.
type Hello struct {
	Version    int    `json:"version"`
	MinVersion int    `json:"min_version"`
	Program    string `json:"program"` // for messages: "dev 1.2"
}

// VersionError says that host and guest share no version of the protocol.
type VersionError struct{ Ours, Theirs Hello }

func (e *VersionError) Error() string {
	return fmt.Sprintf("talk to %s: it speaks control protocol %d to %d, this side %d to %d", e.Theirs.Program, e.Theirs.MinVersion, e.Theirs.Version, e.Ours.MinVersion, e.Ours.Version)
}

// Hint names what to upgrade.
func (e *VersionError) Hint() string {
	if e.Theirs.Version < e.Ours.MinVersion {
		return "the other side is too old: upgrade it (the machine's image with `dev machine upgrade`, or dev itself)"
	}
	return "this side is too old: upgrade dev (or the machine's image, where that is the older one)"
}

// Agree returns the highest version that both sides speak.
func Agree(ours, theirs Hello) (int, error) {
	v := min(ours.Version, theirs.Version)
	if v < ours.MinVersion || v < theirs.MinVersion {
		return 0, &VersionError{Ours: ours, Theirs: theirs}
	}
	return v, nil
}

// Request asks for something; ID comes back with the response.
type Request struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Response answers a request.
type Response struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error is a failure on the other side. Code is one of the Code constants.
type Error struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Codes of errors.
const (
	CodeFailed  = "failed"
	CodeUnknown = "unknown-method"
	CodeBad     = "bad-request"
)

func (e *Error) Error() string { return e.Text }

// Info says what a machine is.
type Info struct {
	Hostname string    `json:"hostname"`
	Kernel   string    `json:"kernel"`
	Arch     string    `json:"arch"`
	CPUs     int       `json:"cpus"`
	Boot     time.Time `json:"boot"`
	Clock    time.Time `json:"clock"`
	Status   Status    `json:"status"`
	Address  []string  `json:"addresses"`
}

// Stage is a step of the boot, with seconds since the kernel started.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Status is what PID 1 keeps about the machine.
type Status struct {
	Stages []Stage `json:"stages"`
	// Problems keep the machine from working, Warnings do not.
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Restarts counts restarts of each service.
	Restarts map[string]int `json:"restarts,omitempty"`
	// DataSchema is the data disk's layout version; 0 when there is no data disk.
	DataSchema int `json:"data_schema"`
}

// Health is the machine's state right now.
type Health struct {
	OK       bool     `json:"ok"`
	Engine   bool     `json:"engine"` // the Docker API answers
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Disk     Disk     `json:"disk"`
}

// Disk is the data disk's fill, in bytes.
type Disk struct {
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// SetTime sets the clock.
type SetTime struct {
	Time time.Time `json:"time"`
}

// Port is a listening socket.
type Port struct {
	Protocol string `json:"protocol"` // tcp or udp
	Address  string `json:"address"`
	Port     int    `json:"port"`
}

// Unmount names a mount.
type Unmount struct {
	Target string `json:"target"`
	// Lazy: also where programs use it, for which it stays.
	Lazy bool `json:"lazy,omitempty"`
	// Unused: not where programs in containers use it. Containers have copies of mounts, which are not in the way otherwise.
	Unused bool `json:"unused,omitempty"`
}

// Unmounted tells which file system it was, as /proc/self/mountinfo names it; or by which containers (their IDs) it is used, and stays.
type Unmounted struct {
	Device string   `json:"device,omitempty"`
	Users  []string `json:"users,omitempty"`
}

// Replace puts what is mounted at Target in the place of a dead file system, wherever containers have that.
type Replace struct {
	Device string `json:"device"`
	Target string `json:"target"`
}

// Replaced tells which containers (their IDs) have it again, and in which programs still use the dead one, which only their restart changes.
type Replaced struct {
	Repaired []string `json:"repaired,omitempty"`
	Stale    []string `json:"stale,omitempty"`
}

// Stale tells what the guest's kernel must not believe any more of what it knows of the mount at Target: all of it, or what it knows of some names.
type Stale struct {
	Target string      `json:"target"`
	All    bool        `json:"all,omitempty"`
	Names  []StaleName `json:"names,omitempty"`
}

// StaleName is a name below a mount, and what has changed.
type StaleName struct {
	// Path has slashes and any bytes; empty, it is the mount itself.
	Path []byte `json:"path"`
	// Listed: its folder may list it no more, or only now. Content: it may have other content.
	Listed  bool `json:"listed,omitempty"`
	Content bool `json:"content,omitempty"`
}

// Trim says how many bytes the data disk gave back.
type Trim struct {
	Bytes int64 `json:"bytes"`
}

// MemoryRequest may ask to give up caches first.
type MemoryRequest struct {
	DropCaches bool `json:"drop_caches,omitempty"`
}

// Memory is in bytes.
type Memory struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
	Free      int64 `json:"free"`
	Cached    int64 `json:"cached"`
	SwapTotal int64 `json:"swap_total"`
	SwapFree  int64 `json:"swap_free"`
	// Load is how many processes wanted a processor or a disk, on average over a minute.
	Load float64 `json:"load"`
}

// PressureRequest says how long to wait for memory to become short.
type PressureRequest struct {
	Wait time.Duration `json:"wait_ns"`
}

// Pressure says whether programs have begun to wait for memory, and how it is used then.
type Pressure struct {
	Short  bool   `json:"short"`
	Memory Memory `json:"memory"`
}

// Grow is the data disk's new size in bytes.
type Grow struct {
	Bytes int64 `json:"bytes"`
}

// LogsRequest names a log (boot, dockerd, containerd, agent) and how many bytes of its end to give; 0 is 64 KiB.
type LogsRequest struct {
	Name string `json:"name"`
	Tail int64  `json:"tail,omitempty"`
}

// Logs is the end of a log.
type Logs struct {
	Text string `json:"text"`
}

// AfterRestore brings a restored machine up to date.
type AfterRestore struct {
	Time    time.Time `json:"time"`
	Entropy []byte    `json:"entropy,omitempty"`
	// Seed is what the machine would have read had it booted; nil: nothing changed. It is applied as a whole as far as a machine that runs can.
	Seed *Seed `json:"seed,omitempty"`
}

// AfterRestored says what a restored machine could not bring up to date, which it can work without.
type AfterRestored struct {
	Warnings []string `json:"warnings,omitempty"`
}

// Conn sends and receives messages, one JSON object per line. Send may be called from several goroutines, Receive from one.
type Conn struct {
	mu  sync.Mutex
	enc *json.Encoder
	in  *bufio.Scanner
}

// NewConn frames a stream.
func NewConn(rw io.ReadWriter) *Conn {
	sc := bufio.NewScanner(rw)
	sc.Buffer(make([]byte, 4096), MaxMessage)
	return &Conn{enc: json.NewEncoder(rw), in: sc}
}

// Send writes one message.
func (c *Conn) Send(v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.enc.Encode(v)
}

// Receive reads one message into v; io.EOF at the end.
func (c *Conn) Receive(v any) error {
	if !c.in.Scan() {
		if err := c.in.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	if err := json.Unmarshal(c.in.Bytes(), v); err != nil {
		return fmt.Errorf("read control message: %w", err)
	}
	return nil
}

// Greet exchanges hellos and agrees on a version.
func (c *Conn) Greet(ours Hello) (int, error) {
	sent := make(chan error, 1)
	go func() { sent <- c.Send(ours) }()
	var theirs Hello
	if err := c.Receive(&theirs); err != nil {
		return 0, fmt.Errorf("greet the other side: %w", err)
	}
	if err := <-sent; err != nil {
		return 0, fmt.Errorf("greet the other side: %w", err)
	}
	return Agree(ours, theirs)
}

// Client calls the guest's control methods. It is safe for concurrent use; calls are answered in any order.
type Client struct {
	conn    *Conn
	close   func() error
	Version int

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Response
	failed  error
}

// NewClient greets the guest over an open control stream, which the client then owns.
func NewClient(rw io.ReadWriteCloser, program string) (*Client, error) {
	c := &Client{conn: NewConn(rw), close: rw.Close, waiting: map[uint64]chan Response{}}
	v, err := c.conn.Greet(Hello{Version: Version, MinVersion: MinVersion, Program: program})
	if err != nil {
		return nil, errors.Join(err, rw.Close())
	}
	c.Version = v
	go c.receive()
	return c, nil
}

// Close ends the stream; calls under way fail.
func (c *Client) Close() error { return c.close() }

// receive hands responses to their callers until the stream ends, which Close brings about.
func (c *Client) receive() {
	for {
		var r Response
		err := c.conn.Receive(&r)
		c.mu.Lock()
		if err != nil {
			c.failed = fmt.Errorf("control link: %w", err)
			for id, ch := range c.waiting {
				delete(c.waiting, id)
				close(ch)
			}
			c.mu.Unlock()
			return
		}
		ch := c.waiting[r.ID]
		delete(c.waiting, r.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
}

// Call asks for a method and decodes its result into result unless that is nil.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	var raw json.RawMessage
	if params != nil {
		data, err := json.Marshal(params)
		if err != nil {
			return fmt.Errorf("call %q: %w", method, err)
		}
		raw = data
	}
	id, ch, err := c.register()
	if err != nil {
		return fmt.Errorf("call %q: %w", method, err)
	}
	if err := c.conn.Send(Request{ID: id, Method: method, Params: raw}); err != nil {
		c.forget(id)
		return fmt.Errorf("call %q: %w", method, err)
	}
	select {
	case <-ctx.Done():
		c.forget(id)
		return fmt.Errorf("call %q: %w", method, context.Cause(ctx))
	case r, ok := <-ch:
		switch {
		case !ok:
			return fmt.Errorf("call %q: %w", method, c.failure())
		case r.Error != nil:
			return fmt.Errorf("call %q: %w", method, r.Error)
		case result == nil || len(r.Result) == 0:
			return nil
		}
		return json.Unmarshal(r.Result, result)
	}
}

func (c *Client) register() (uint64, chan Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, nil, c.failed
	}
	c.next++
	ch := make(chan Response, 1)
	c.waiting[c.next] = ch
	return c.next, ch, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}
