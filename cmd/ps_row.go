// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"github.com/seed71221737/dev/compose"
)

// psFormat turns --format into what the docker CLI's formatter takes.
func psFormat(format string) formatter.Format {
	if format == "" || format == formatter.TableFormatKey {
		return "table {{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}"
	}
	return formatter.Format(format)
}

// psRow is one container in `ps`. Its methods are the fields that templates and --format json have, named as docker compose names them.
type psRow struct {
	formatter.HeaderContext
	c     compose.Container
	trunc bool
}

func newPsRow() *psRow {
	r := &psRow{}
	r.Header = formatter.SubHeaderContext{
		"ID": "CONTAINER ID", "Name": "NAME", "Project": "PROJECT", "Service": "SERVICE", "Image": "IMAGE", "Command": "COMMAND",
		"CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS",
	}
	return r
}

// MarshalJSON is all fields as one object.
func (r *psRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// ID is the container's ID, short unless --no-trunc.
func (r *psRow) ID() string {
	if r.trunc {
		return formatter.TruncateID(r.c.ID)
	}
	return r.c.ID
}

// Name is the container's name.
func (r *psRow) Name() string { return r.c.Name }

// Names is the name again; other names only come with links between containers, which Compose does not make.
func (r *psRow) Names() string { return r.c.Name }

// Service is the service that the container belongs to.
func (r *psRow) Service() string { return r.c.Service() }

// Project is the project's name.
func (r *psRow) Project() string { return r.c.Labels[compose.LabelProject] }

// Image is the image as it was asked for.
func (r *psRow) Image() string { return r.c.Image }

// Command is what the container runs, in quotes.
func (r *psRow) Command() string {
	command := r.c.Command
	if r.trunc {
		command = formatter.Ellipsis(command, 20)
	}
	return strconv.Quote(command)
}

// CreatedAt is when the container was made.
func (r *psRow) CreatedAt() string { return r.c.Created.Local().String() }

// RunningFor is how long ago the container was made.
func (r *psRow) RunningFor() string { return units.HumanDuration(time.Since(r.c.Created)) + " ago" }

// ExitCode is the code that a stopped container ended with.
func (r *psRow) ExitCode() int { return r.c.ExitCode }

// State is one word: running, exited, …
func (r *psRow) State() string { return string(r.c.State) }

// Status is the engine's own sentence on the state.
func (r *psRow) Status() string { return r.c.Status }

// Health is healthy, unhealthy, starting or empty.
func (r *psRow) Health() string { return string(r.c.Health) }

// psPublisher is one published or exposed port, as docker compose names its fields.
type psPublisher struct {
	URL           string
	TargetPort    int
	PublishedPort int
	Protocol      string
}

// Publishers are the ports, by container port.
func (r *psRow) Publishers() []psPublisher {
	out := []psPublisher{}
	for _, p := range r.sortedPorts() {
		out = append(out, psPublisher{p.HostIP, int(p.ContainerPort), int(p.HostPort), p.Protocol})
	}
	return out
}

func (r *psRow) sortedPorts() []compose.Port {
	return slices.SortedStableFunc(slices.Values(r.c.Ports), func(x, y compose.Port) int { return int(x.ContainerPort) - int(y.ContainerPort) })
}

// Ports is all ports in one line: 0.0.0.0:8080->80/tcp.
func (r *psRow) Ports() string {
	var ports []container.PortSummary
	for _, p := range r.sortedPorts() {
		ip, _ := netip.ParseAddr(p.HostIP)
		ports = append(ports, container.PortSummary{IP: ip, PrivatePort: p.ContainerPort, PublicPort: p.HostPort, Type: p.Protocol})
	}
	return formatter.DisplayablePorts(ports)
}

// Labels are all labels, by name.
func (r *psRow) Labels() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(r.c.Labels)) {
		all = append(all, k+"="+r.c.Labels[k])
	}
	return strings.Join(all, ",")
}

// Label is the value of one label.
func (r *psRow) Label(name string) string { return r.c.Labels[name] }

// Mounts are the names or sources of what is mounted.
func (r *psRow) Mounts() string {
	var all []string
	for _, m := range r.c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if r.trunc {
			name = formatter.Ellipsis(name, 15)
		}
		all = append(all, name)
	}
	return strings.Join(all, ",")
}

// LocalVolumes is the number of volumes.
func (r *psRow) LocalVolumes() string {
	n := 0
	for _, m := range r.c.Mounts {
		if m.Type == "volume" {
			n++
		}
	}
	return strconv.Itoa(n)
}

// Networks are the networks that the container is on.
func (r *psRow) Networks() string { return strings.Join(slices.Sorted(maps.Keys(r.c.Networks)), ",") }

// Size is not measured: it would cost the engine a walk through every container's files. docker compose shows 0B, too.
func (r *psRow) Size() string { return "0B" }

var _ json.Marshaler = (*psRow)(nil)
