// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

// machineRow is one machine in `ls`: docker-machine's template fields under their names, and ours.
type machineRow struct {
	Name          string                `json:"name"`
	Active        string                `json:"-"` // "*" or "-"
	ActiveHost    bool                  `json:"active"`
	ActiveSwarm   bool                  `json:"-"`
	DriverName    string                `json:"driver"`
	State         string                `json:"state"` // docker-machine's word
	Phase         string                `json:"phase"`
	URL           string                `json:"url,omitempty"`
	SwarmOptions  any                   `json:"-"` // nil: standalone Swarm is gone
	Swarm         string                `json:"-"`
	EngineOptions machine.EngineOptions `json:"-"`
	Error         string                `json:"-"`
	Problems      []string              `json:"problems,omitempty"`
	DockerVersion string                `json:"docker_version,omitempty"`
	ResponseTime  time.Duration         `json:"-"`
	Arch          string                `json:"arch,omitempty"`
	CPUs          int                   `json:"cpus,omitempty"`
	MemoryMiB     int                   `json:"memory_mib,omitempty"`
	DiskMiB       int                   `json:"disk_mib,omitempty"`
	Image         string                `json:"image,omitempty"`
	Labels        map[string]string     `json:"labels,omitempty"`
	TCP           string                `json:"tcp,omitempty"`
	SSH           string                `json:"ssh,omitempty"`
	Ports         []hostagent.Port      `json:"ports,omitempty"`
}

// machineState is docker-machine's word for a phase. A degraded machine runs: what is wrong stands among its errors. One that is asleep runs for all who ask
// it anything.
func machineState(phase string) string {
	switch phase {
	case "running", "degraded", "asleep":
		return "Running"
	case "suspended":
		return "Saved"
	case "broken", "failed":
		return "Error"
	}
	return strings.ToUpper(phase[:min(1, len(phase))]) + phase[min(1, len(phase)):]
}

// machineHeaders are the headings of the fields in a table.
var machineHeaders = map[string]string{
	"Name": "NAME", "Active": "ACTIVE", "ActiveHost": "ACTIVE_HOST", "ActiveSwarm": "ACTIVE_SWARM", "DriverName": "DRIVER", "State": "STATE",
	"Phase": "PHASE", "URL": "URL", "SwarmOptions": "SWARM_OPTIONS", "Swarm": "SWARM", "EngineOptions": "ENGINE_OPTIONS", "Error": "ERRORS",
	"Problems": "PROBLEMS", "DockerVersion": "DOCKER", "ResponseTime": "RESPONSE", "Arch": "ARCH", "CPUs": "CPUS", "MemoryMiB": "MEMORY",
	"DiskMiB": "DISK", "Image": "IMAGE", "Labels": "LABELS", "TCP": "TCP", "SSH": "SSH", "Ports": "PORTS",
}

// machineTable is the format of `ls` where none is given: docker-machine's.
const machineTable = "table {{ .Name }}\t{{ .Active }}\t{{ .DriverName}}\t{{ .State }}\t{{ .URL }}\t{{ .Swarm }}\t{{ .DockerVersion }}\t{{ .Error}}"

// writeMachines renders rows by a format: json, a Go template for each row, or one after "table " that gets headings and columns.
func writeMachines(w io.Writer, rows []machineRow, format string) (err error) {
	if format == "json" {
		return writeJSON(w, rows)
	}
	layout, isTable := strings.CutPrefix(format, "table")
	if isTable {
		layout = strings.TrimSpace(layout)
		if layout == "" {
			layout = strings.TrimPrefix(machineTable, "table ")
		}
	}
	t, err := parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(layout))
	if err != nil {
		return err
	}
	if isTable {
		tabs := tabwriter.NewWriter(w, 5, 1, 3, ' ', 0)
		if err := t.Execute(tabs, machineHeaders); err != nil {
			return fmt.Errorf("write the headings of --format %q: %w", format, err)
		}
		fmt.Fprintln(tabs)
		defer func() { err = errors.Join(err, tabs.Flush()) }()
		w = tabs
	}
	for _, row := range rows {
		if err := t.Execute(w, row); err != nil {
			return fmt.Errorf("write machine %q by --format %q: %w", row.Name, format, err)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// parseTemplate reads a --format template; it has docker-machine's functions json and prettyjson.
func parseTemplate(text string) (*template.Template, error) {
	marshal := func(indent string) func(any) (string, error) {
		return func(v any) (string, error) {
			data, err := json.MarshalIndent(v, "", indent)
			if indent == "" {
				data, err = json.Marshal(v)
			}
			return string(data), err
		}
	}
	t, err := template.New("").Funcs(template.FuncMap{"json": marshal(""), "prettyjson": marshal("    ")}).Parse(text)
	if err != nil {
		return nil, usagef("read --format: %v", strings.TrimPrefix(err.Error(), "template: :"))
	}
	return t, nil
}

// machineFilter is what --filter lets through. Values of one key are alternatives, keys restrict each other.
type machineFilter struct {
	drivers, states, labels []string
	names                   []*regexp.Regexp
}

func parseMachineFilters(filters []string) (f machineFilter, err error) {
	for _, text := range filters {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return f, usagef("read --filter %q: write KEY=VALUE", text)
		}
		switch strings.ToLower(key) {
		case "driver":
			f.drivers = append(f.drivers, value)
		case "state":
			f.states = append(f.states, value)
		case "label":
			f.labels = append(f.labels, value)
		case "name":
			re, err := regexp.Compile(value)
			if err != nil {
				return f, usagef("read --filter %q: %v", text, err)
			}
			f.names = append(f.names, re)
		case "swarm":
			return f, usagef("--filter %q: standalone Swarm is gone, no machine belongs to one", text)
		default:
			return f, usagef("Unsupported filter key '%s'", key)
		}
	}
	return f, nil
}

func (f machineFilter) keeps(r machineRow) bool {
	is := func(value string) func(string) bool {
		return func(wanted string) bool { return strings.EqualFold(value, wanted) }
	}
	return (len(f.drivers) == 0 || slices.ContainsFunc(f.drivers, is(r.DriverName))) &&
		(len(f.states) == 0 || slices.ContainsFunc(f.states, func(s string) bool { return is(r.State)(s) || is(r.Phase)(s) })) &&
		(len(f.labels) == 0 || slices.ContainsFunc(f.labels, func(l string) bool { return hasLabel(r.Labels, l) })) &&
		(len(f.names) == 0 || slices.ContainsFunc(f.names, func(re *regexp.Regexp) bool { return re.MatchString(r.Name) }))
}

// hasLabel reports whether labels have KEY=VALUE, in whatever case.
func hasLabel(labels map[string]string, wanted string) bool {
	for k, v := range labels {
		if strings.EqualFold(k+"="+v, wanted) {
			return true
		}
	}
	return false
}

// compareNatural orders names as people do: m2 before m10.
func compareNatural(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			x, y := strings.TrimLeft(a[:da], "0"), strings.TrimLeft(b[:db], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is how many digits a text starts with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
