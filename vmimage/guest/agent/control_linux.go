// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Control answers the host's requests about the machine. Set the fields; the zero value of a function field means that the request is refused.
type Control struct {
	// Program names this side in messages.
	Program string
	// StatusFile is PID 1's, LogDir holds the logs, DataDir is on the data disk, Docker is the engine's socket.
	StatusFile, LogDir, DataDir, Docker string
	// Power turns the machine off, or starts it again.
	Power func(reboot bool) error
	// Mount mounts what the host asks for.
	Mount func(proto.Mount) error
	// Freeze makes the machine ready for its memory to be saved, Thaw brings it up to date when that was restored.
	Freeze func() error
	Thaw   func(proto.AfterRestore) (proto.AfterRestored, error)
	// Grow makes the data disk's file system as large as the disk, which has so many bytes now.
	Grow func(ctx context.Context, bytes int64) error
}

// Serve answers requests on a stream until it ends. Requests run side by side.
func (c *Control) Serve(ctx context.Context, rw io.ReadWriter) error {
	conn := proto.NewConn(rw)
	if _, err := conn.Greet(proto.Hello{Version: proto.Version, MinVersion: proto.MinVersion, Program: c.Program}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	busy := make(chan struct{}, 16)
	for {
		var r proto.Request
		if err := conn.Receive(&r); err != nil {
			return err
		}
		busy <- struct{}{}
		wg.Go(func() {
			defer func() { <-busy }()
			_ = conn.Send(c.answer(ctx, r)) // a dead link ends the loop
		})
	}
}

func (c *Control) answer(ctx context.Context, r proto.Request) proto.Response {
	result, err := c.call(ctx, r)
	res := proto.Response{ID: r.ID}
	var e *proto.Error
	switch {
	case errors.As(err, &e):
		res.Error = e
	case err != nil:
		res.Error = &proto.Error{Code: proto.CodeFailed, Text: err.Error()}
	case result != nil:
		data, err := json.Marshal(result)
		if err != nil {
			res.Error = &proto.Error{Code: proto.CodeFailed, Text: err.Error()}
		}
		res.Result = data
	}
	return res
}

func (c *Control) call(ctx context.Context, r proto.Request) (any, error) {
	switch r.Method {
	case proto.MethodInfo:
		return c.info()
	case proto.MethodHealth:
		return c.health(ctx), nil
	case proto.MethodSetTime:
		return with(r, func(p proto.SetTime) (any, error) { return nil, setClock(p.Time) })
	case proto.MethodPorts:
		return listening("/proc/net")
	case proto.MethodMount:
		return with(r, func(p proto.Mount) (any, error) { return nil, c.Mount(p) })
	case proto.MethodUnmount:
		return with(r, func(p proto.Unmount) (any, error) { return unmount(p) })
	case proto.MethodReplace:
		return with(r, func(p proto.Replace) (any, error) { return ReplaceMounts(p) })
	case proto.MethodStale:
		return with(r, func(p proto.Stale) (any, error) { return nil, Stale(p) })
	case proto.MethodTrim:
		return trim(c.DataDir)
	case proto.MethodMemory:
		return with(r, func(p proto.MemoryRequest) (any, error) { return memory(p.DropCaches) })
	case proto.MethodPressure:
		return with(r, func(p proto.PressureRequest) (any, error) { return pressure(ctx, memoryStalls, p.Wait) })
	case proto.MethodGrow:
		return with(r, func(p proto.Grow) (any, error) { return c.grow(ctx, p) })
	case proto.MethodPowerOff:
		return nil, c.Power(false)
	case proto.MethodReboot:
		return nil, c.Power(true)
	case proto.MethodLogs:
		return with(r, c.logs)
	case proto.MethodFreeze:
		if c.Freeze != nil {
			return nil, c.Freeze()
		}
	case proto.MethodThaw:
		if c.Thaw != nil {
			return with(r, func(p proto.AfterRestore) (any, error) { return c.Thaw(p) })
		}
	}
	return nil, &proto.Error{Code: proto.CodeUnknown, Text: fmt.Sprintf("this machine's image does not know the request %q: upgrade it", r.Method)}
}

// with decodes a request's parameters.
func with[P any](r proto.Request, f func(P) (any, error)) (any, error) {
	var p P
	if len(r.Params) > 0 {
		if err := json.Unmarshal(r.Params, &p); err != nil {
			return nil, &proto.Error{Code: proto.CodeBad, Text: fmt.Sprintf("read parameters of %q: %v", r.Method, err)}
		}
	}
	return f(p)
}

func (c *Control) status() proto.Status {
	var s proto.Status
	if data, err := os.ReadFile(c.StatusFile); err == nil {
		_ = json.Unmarshal(data, &s) // written whole by PID 1, or not there yet
	}
	return s
}

func (c *Control) info() (proto.Info, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return proto.Info{}, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	now := time.Now()
	var up unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	info := proto.Info{
		Hostname: unix.ByteSliceToString(u.Nodename[:]), Kernel: unix.ByteSliceToString(u.Release[:]), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(),
		Clock: now, Boot: now.Add(-time.Duration(up.Nano())), Status: c.status(),
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			info.Address = append(info.Address, n.IP.String())
		}
	}
	return info, nil
}

// lowDisk is the share of the data disk below which its fill is worth a warning, and fullDisk below which it is a problem.
const (
	lowDisk  = 0.10
	fullDisk = 0.01
)

func (c *Control) health(ctx context.Context) proto.Health {
	s := c.status()
	h := proto.Health{Problems: s.Problems, Warnings: s.Warnings, Engine: pingEngine(ctx, c.Docker)}
	fs, err := statfs(c.DataDir)
	if err == nil {
		h.Disk = diskOf(fs)
	}
	switch free := float64(h.Disk.Free); {
	case free < fullDisk*float64(h.Disk.Total):
		h.Problems = append(h.Problems, fmt.Sprintf("the data disk is full: %d MiB of %d MiB are free; remove images or volumes, or enlarge it", h.Disk.Free>>20, h.Disk.Total>>20))
	case free < lowDisk*float64(h.Disk.Total):
		h.Warnings = append(h.Warnings, fmt.Sprintf("the data disk is almost full: %d MiB of %d MiB are free", h.Disk.Free>>20, h.Disk.Total>>20))
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		h.Problems = append(h.Problems, "the data disk is read-only after an error: start the machine again to check it")
	}
	h.OK = h.Engine && len(h.Problems) == 0
	return h
}

func statfs(dir string) (fs unix.Statfs_t, err error) {
	err = unix.Statfs(dir, &fs)
	return fs, err
}

func diskOf(fs unix.Statfs_t) proto.Disk {
	return proto.Disk{Total: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize}
}

// grow has the file system take up a disk that has become larger.
func (c *Control) grow(ctx context.Context, p proto.Grow) (any, error) {
	if err := c.Grow(ctx, p.Bytes); err != nil {
		return nil, err
	}
	fs, err := statfs(c.DataDir)
	if err != nil {
		return nil, fmt.Errorf("look at the data disk: %w", err)
	}
	return diskOf(fs), nil
}

// pingEngine asks the Docker API whether it answers.
func pingEngine(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return false
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close() // its status is the answer
	return res.StatusCode == http.StatusOK
}

func setClock(t time.Time) error {
	if t.Year() < 2020 {
		return &proto.Error{Code: proto.CodeBad, Text: fmt.Sprintf("set the clock to %v: that is no time to be living in", t)}
	}
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

func unmount(p proto.Unmount) (done proto.Unmounted, err error) {
	if !filepath.IsAbs(p.Target) || filepath.Clean(p.Target) == "/" {
		return done, &proto.Error{Code: proto.CodeBad, Text: fmt.Sprintf("unmount %q: not a mount of the host's", p.Target)}
	}
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return done, fmt.Errorf("unmount %q: %w", p.Target, err)
	}
	for _, m := range mounts {
		if m.at == p.Target {
			done.Device = m.device // the last is on top
		}
	}
	if p.Unused && done.Device != "" {
		if done.Users, err = usersOf(done.Device); err != nil || len(done.Users) > 0 {
			return done, err
		}
	}
	flags := unix.UMOUNT_NOFOLLOW
	if p.Lazy {
		flags |= unix.MNT_DETACH
	}
	if err := unix.Unmount(p.Target, flags); err != nil {
		return done, fmt.Errorf("unmount %q: %w", p.Target, err)
	}
	return done, nil
}

// listening reads the tables of sockets below dir (/proc/net).
func listening(dir string) ([]proto.Port, error) {
	const tcpListen, udpUnconnected = "0A", "07"
	ports := []proto.Port{}
	for _, table := range []struct{ file, protocol, state string }{
		{"tcp", "tcp", tcpListen}, {"tcp6", "tcp", tcpListen}, {"udp", "udp", udpUnconnected}, {"udp6", "udp", udpUnconnected},
	} {
		f, err := os.Open(filepath.Join(dir, table.file))
		if err != nil {
			continue // a kernel without IPv6
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			fields := strings.Fields(sc.Text())
			if len(fields) > 3 && fields[3] == table.state {
				if p, ok := parseSocket(fields[1]); ok {
					p.Protocol = table.protocol
					ports = append(ports, p)
				}
			}
		}
		err = errors.Join(sc.Err(), f.Close())
		if err != nil {
			return nil, fmt.Errorf("list listening ports: %w", err)
		}
	}
	return ports, nil
}

// parseSocket reads ADDRESS:PORT in hexadecimal digits, the address as 32-bit words in the machine's byte order.
func parseSocket(s string) (proto.Port, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw) != 4 && len(raw) != 16 {
		return proto.Port{}, false
	}
	ip := make(net.IP, len(raw))
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(ip[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	return proto.Port{Address: ip.String(), Port: int(n)}, true
}

// fitrim is the call that gives free blocks back, _IOWR(0x58, 121, struct fstrim_range) of linux/fs.h.
const fitrim = 0xc0185879

// fstrimRange is the kernel's struct for it.
type fstrimRange struct{ start, length, minimum uint64 }

func trim(dir string) (proto.Trim, error) {
	f, err := os.Open(dir)
	if err != nil {
		return proto.Trim{}, fmt.Errorf("trim the data disk: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil { // what was deleted is free once the journal says so
		return proto.Trim{}, fmt.Errorf("trim the data disk: %w", err)
	}
	r := fstrimRange{length: ^uint64(0)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fitrim, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return proto.Trim{}, fmt.Errorf("trim the data disk: %w", errno)
	}
	return proto.Trim{Bytes: int64(r.length)}, nil
}

func dropCaches() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("give up caches: %w", err)
	}
	_ = os.WriteFile("/proc/sys/vm/compact_memory", []byte("1"), 0) // larger free blocks compress better, no more
	return nil
}

func memory(drop bool) (any, error) {
	if drop {
		if err := dropCaches(); err != nil {
			return nil, err
		}
	}
	return readMemory()
}

func readMemory() (proto.Memory, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return proto.Memory{}, fmt.Errorf("read memory's use: %w", err)
	}
	m := parseMemory(string(data))
	load, _ := os.ReadFile("/proc/loadavg") // a figure for comfort
	first, _, _ := strings.Cut(string(load), " ")
	m.Load, _ = strconv.ParseFloat(first, 64)
	return m, nil
}

func parseMemory(text string) proto.Memory {
	var m proto.Memory
	into := map[string]*int64{
		"MemTotal": &m.Total, "MemAvailable": &m.Available, "MemFree": &m.Free, "Cached": &m.Cached, "SwapTotal": &m.SwapTotal, "SwapFree": &m.SwapFree,
	}
	for _, line := range strings.Split(text, "\n") {
		name, value, _ := strings.Cut(line, ":")
		if p := into[name]; p != nil {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			*p = n << 10
		}
	}
	return m
}

const (
	defaultTail = 64 << 10
	maxTail     = 2 << 20
)

func (c *Control) logs(p proto.LogsRequest) (any, error) {
	switch p.Name {
	case "boot", "dockerd", "containerd":
	default:
		return nil, &proto.Error{Code: proto.CodeBad, Text: fmt.Sprintf("there is no log %q: boot, dockerd and containerd are there", p.Name)}
	}
	n := p.Tail
	if n <= 0 {
		n = defaultTail
	}
	n = min(n, maxTail)
	f, err := os.Open(filepath.Join(c.LogDir, p.Name+".log"))
	if err != nil {
		return nil, fmt.Errorf("read log %q: %w", p.Name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > n {
		_, _ = f.Seek(-n, io.SeekEnd) // a seekable file
	}
	data, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return nil, fmt.Errorf("read log %q: %w", p.Name, err)
	}
	return proto.Logs{Text: strings.ToValidUTF8(string(data), "�")}, nil
}
