// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"slices"
	"strings"
	"testing"
)

var someMachines = []machineRow{
	{Name: "default", Active: "*", ActiveHost: true, DriverName: "qemu", State: "Running", Phase: "degraded", URL: "unix:///d.sock", DockerVersion: "v29.0.0",
		Error: "port 80 is taken", Labels: map[string]string{"team": "Blue"}},
	{Name: "web10", Active: "-", DriverName: "qemu", State: "Stopped", Phase: "stopped", DockerVersion: "Unknown"},
}

func TestWriteMachines(t *testing.T) {
	for format, want := range map[string]string{
		machineTable: "NAME      ACTIVE   DRIVER   STATE     URL              SWARM   DOCKER    ERRORS\n" +
			"default   *        qemu     Running   unix:///d.sock           v29.0.0   port 80 is taken\n" +
			"web10     -        qemu     Stopped                            Unknown   \n",
		"{{.Name}}: {{.State}}":            "default: Running\nweb10: Stopped\n",
		`table {{.Name}}\t{{.Phase}}`:      "NAME      PHASE\ndefault   degraded\nweb10     stopped\n",
		"{{json .Labels}}":                 "{\"team\":\"Blue\"}\nnull\n",
		`{{.Name}}\t{{.ActiveHost}}`:       "default\ttrue\nweb10\tfalse\n",
		"{{.Swarm}}{{.SwarmOptions}}":      "<no value>\n<no value>\n",
		"{{range .Ports}}{{.Host}}{{end}}": "\n\n",
	} {
		var out strings.Builder
		if err := writeMachines(&out, someMachines, format); err != nil || out.String() != want {
			t.Errorf("%s (%v):\n%s\nwant:\n%s", format, err, out.String(), want)
		}
	}
	var out strings.Builder
	if err := writeMachines(&out, someMachines[:1], "json"); err != nil || !strings.HasPrefix(out.String(), `[{"name":"default","active":true,"driver":"qemu","state":"Running","phase":"degraded"`) {
		t.Errorf("json: %s (%v)", out.String(), err)
	}
	for _, wrong := range []string{"{{.Name", "{{.Nothing}}", "table {{.Name}}{{.Nothing.X}}"} {
		if err := writeMachines(&out, someMachines, wrong); err == nil || !strings.Contains(err.Error(), "--format") {
			t.Errorf("--format %q: %v", wrong, err)
		}
	}
}

func TestMachineFilters(t *testing.T) {
	for filters, want := range map[string]string{
		"":                                   "default web10",
		"name=^web":                          "web10",
		"state=running":                      "default",
		"state=degraded":                     "default",
		"state=Running state=Stopped":        "default web10",
		"driver=QEMU state=stopped":          "web10",
		"label=team=blue":                    "default",
		"label=team=red":                     "",
		"driver=virtualbox":                  "",
		"name=def name=10 driver=qemu":       "default web10",
		"name=default label=x=y state=Error": "",
	} {
		f, err := parseMachineFilters(strings.Fields(filters))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range someMachines {
			if f.keeps(m) {
				names = append(names, m.Name)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", filters, got, want)
		}
	}
	for filter, want := range map[string]string{"color=red": "Unsupported filter key 'color'", "name": "KEY=VALUE", "name=(": "read --filter", "swarm=x": "Swarm"} {
		if _, err := parseMachineFilters([]string{filter}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", filter, err, want)
		}
	}
}

func TestCompareNatural(t *testing.T) {
	names := []string{"m10", "m2", "a", "m1", "M", "m", "m02b", "m2a"}
	slices.SortFunc(names, compareNatural)
	if got, want := strings.Join(names, " "), "M a m m1 m2 m2a m02b m10"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestMachineState(t *testing.T) {
	for phase, want := range map[string]string{"running": "Running", "degraded": "Running", "suspended": "Saved", "broken": "Error", "starting": "Starting", "": ""} {
		if got := machineState(phase); got != want {
			t.Errorf("%s: %s, want %s", phase, got, want)
		}
	}
}
