// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"strconv"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// statsFormat turns --format into what the docker CLI's formatter takes.
func statsFormat(format string) formatter.Format {
	if format == "" || format == formatter.TableFormatKey {
		return "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
	}
	return formatter.Format(format)
}

// statsRow is one container in `stats`. Its methods are the fields that templates and --format json have, named as the docker CLI names them.
type statsRow struct {
	formatter.HeaderContext
	c compose.Container
	s engine.Stats
	// known is false as long as nothing has been measured.
	known, trunc bool
}

func newStatsRow() *statsRow {
	r := &statsRow{}
	r.Header = formatter.SubHeaderContext{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
		"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS", "Service": "SERVICE",
	}
	return r
}

// MarshalJSON is all fields as one object.
func (r *statsRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// Container is the container's ID.
func (r *statsRow) Container() string { return r.c.ID }

// Name is the container's name.
func (r *statsRow) Name() string { return r.c.Name }

// Service is the service that the container belongs to.
func (r *statsRow) Service() string { return r.c.Service() }

// ID is the container's ID, short unless --no-trunc.
func (r *statsRow) ID() string {
	if r.trunc {
		return formatter.TruncateID(r.c.ID)
	}
	return r.c.ID
}

// CPUPerc is the processor time used, in percent of one processor.
func (r *statsRow) CPUPerc() string { return r.orDashes("--", percent(r.s.CPU)) }

// MemUsage is the memory used, and the limit.
func (r *statsRow) MemUsage() string {
	return r.orDashes("-- / --", units.BytesSize(float64(r.s.Memory))+" / "+units.BytesSize(float64(r.s.MemoryLimit)))
}

// MemPerc is the memory used, in percent of the limit.
func (r *statsRow) MemPerc() string {
	if r.s.MemoryLimit == 0 {
		return r.orDashes("--", percent(0))
	}
	return r.orDashes("--", percent(float64(r.s.Memory)/float64(r.s.MemoryLimit)*100))
}

// NetIO is what was received and sent.
func (r *statsRow) NetIO() string { return r.orDashes("--", twoSizes(r.s.Received, r.s.Sent)) }

// BlockIO is what was read and written.
func (r *statsRow) BlockIO() string { return r.orDashes("--", twoSizes(r.s.Read, r.s.Written)) }

// PIDs counts processes and threads.
func (r *statsRow) PIDs() string { return r.orDashes("--", strconv.FormatUint(r.s.PIDs, 10)) }

func (r *statsRow) orDashes(dashes, value string) string {
	if !r.known {
		return dashes
	}
	return value
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }

func twoSizes(a, b uint64) string {
	return units.HumanSizeWithPrecision(float64(a), 3) + " / " + units.HumanSizeWithPrecision(float64(b), 3)
}

var _ json.Marshaler = (*statsRow)(nil)
