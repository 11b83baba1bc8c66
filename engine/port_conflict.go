// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/internal/portholder"
)

// PortError tells that a container's port on the host is taken, and by whom if that could be found out.
type PortError struct {
	Address  netip.Addr // the host address; invalid if the engine did not say
	Port     uint16
	Protocol string // tcp, udp, sctp
	// Holder says who holds the port: `container "b-web-1" of project "b"` or `process nginx (pid 123)`. Empty if unknown.
	Holder string
	hint   string
	err    error
}

// Error names the port and who holds it.
func (e *PortError) Error() string {
	where := fmt.Sprintf("port %d/%s", e.Port, e.Protocol)
	if e.Address.IsValid() && !e.Address.IsUnspecified() {
		where = fmt.Sprintf("port %s/%s", netip.AddrPortFrom(e.Address, e.Port), e.Protocol)
	}
	if e.Holder == "" {
		return where + " of the host is already in use"
	}
	return where + " of the host is already in use by " + e.Holder
}

// Hint returns the next command to type.
func (e *PortError) Hint() string { return e.hint }

// Unwrap returns the engine's own error.
func (e *PortError) Unwrap() error { return e.err }

// portConflicts are the engine's words on a port that is taken, by an allocation of its own or by another process. Like all patterns here
// they are compiled at first use: few runs meet a conflict, and every run would pay.
var portConflicts = sync.OnceValue(func() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`[Bb]ind for (\S+):(\d+) failed: port is already allocated`),
		regexp.MustCompile(`failed to bind host port (?:for )?(\S+?):(\d+)(?::\S+)?/(tcp|udp|sctp): .*(?:already in use|already allocated)`),
		regexp.MustCompile(`listen (?:tcp|udp|sctp)[46]? (\S+):(\d+): bind: address already in use`),
		regexp.MustCompile(`ports are not available: exposing port (?:TCP|UDP) (\S+):(\d+)`),
	}
})

var protocolWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)\b(tcp|udp|sctp)[46]?\b`) })

// findPortConflict reads a port conflict from the engine's error; nil if it is none.
func findPortConflict(err error) *PortError {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, re := range portConflicts() {
		m := re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		port, convErr := strconv.ParseUint(m[2], 10, 16)
		if convErr != nil {
			continue
		}
		e := &PortError{Port: uint16(port), Protocol: "tcp", err: err}
		e.Address, _ = netip.ParseAddr(strings.Trim(m[1], "[]"))
		if len(m) > 3 {
			e.Protocol = m[3]
		} else if p := protocolWord().FindStringSubmatch(m[0]); p != nil {
			e.Protocol = strings.ToLower(p[1])
		}
		return e
	}
	return nil
}

// portConflict tries again where the port is one of a range, of which the engine hands out the same one twice when containers start at
// the same time; else it finds out who holds the port.
func (t *task) portConflict(ctx context.Context, conflict *PortError, cause error) error {
	r, err := t.api.ContainerInspect(ctx, t.id, client.ContainerInspectOptions{})
	if err == nil && r.Container.HostConfig != nil && hasPortRange(r.Container.HostConfig.PortBindings) {
		t.ranges.Lock()
		defer t.ranges.Unlock()
		if cause = t.start(ctx); cause == nil {
			return nil
		}
		if conflict = findPortConflict(cause); conflict == nil {
			return cause
		}
	}
	conflict.err = t.explain(cause)
	t.nameHolder(ctx, conflict)
	return conflict
}

// hasPortRange reports whether one of the host ports is given as a range.
func hasPortRange(bindings network.PortMap) bool {
	for _, list := range bindings {
		for _, b := range list {
			if strings.Contains(b.HostPort, "-") {
				return true
			}
		}
	}
	return false
}

// nameHolder finds who holds the port: a container of this engine, or a process of this host if the engine runs on it.
func (t *task) nameHolder(ctx context.Context, e *PortError) {
	e.hint = "publish another port of the host, or free this one"
	if c, ok := t.publisher(ctx, e); ok {
		e.Holder = describeContainer(c.Name, c.Labels)
		if project := c.Labels[compose.LabelProject]; project != "" {
			e.hint = fmt.Sprintf("stop it: dev -p %s stop %s; or publish another port of the host", project, c.Service())
		} else {
			e.hint = fmt.Sprintf("stop it: docker stop %s; or publish another port of the host", c.Name)
		}
		return
	}
	if !strings.HasPrefix(t.host, "unix://") {
		return
	}
	if p, ok := portholder.Find(e.Protocol, e.Address, e.Port); ok {
		e.Holder = p.String()
		e.hint = fmt.Sprintf("stop that process (pid %d), or publish another port of the host", p.PID)
	}
}

// publisher finds the running container that has published the port.
func (t *task) publisher(ctx context.Context, e *PortError) (compose.Container, bool) {
	filter := client.Filters{}.Add("publish", fmt.Sprintf("%d/%s", e.Port, e.Protocol)).Add("publish", strconv.Itoa(int(e.Port)))
	list, err := t.api.ContainerList(ctx, client.ContainerListOptions{Filters: filter})
	if err != nil {
		return compose.Container{}, false
	}
	for i := range list.Items {
		c := newContainer(&list.Items[i])
		for _, p := range c.Ports {
			if c.ID != t.id && p.HostPort == e.Port && p.Protocol == e.Protocol {
				return c, true
			}
		}
	}
	return compose.Container{}, false
}
