// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed71221737/dev/engine/doctor"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/machine"
)

// TestContextsOfMachines: of docker's contexts only that of a machine that is gone is found, and removed.
func TestContextsOfMachines(t *testing.T) {
	home := t.TempDir()
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs, env: []string{"DEV_HOME=" + home}, cwd: home}
	m := a.machines()
	s, err := m.store()
	if err != nil {
		t.Fatal(err)
	}
	docker := endpoint.Docker{Dir: filepath.Join(home, "docker")}
	lead := func(name, to string) {
		t.Helper()
		if _, err := docker.WriteContextNamed(name, "", to); err != nil {
			t.Fatal(err)
		}
	}
	socket := func(name string) string { return endpoint.LocalHost(machine.Dir(filepath.Join(s.Dir, name)).Docker()) }
	lead("dev-gone", socket("gone"))
	lead("dev-there", socket("there"))
	lead("dev-mine", "unix:///elsewhere.sock")
	lead("other", socket("gone"))
	if err := os.MkdirAll(filepath.Join(s.Dir, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	host := doctor.Host{DockerDir: docker.Dir}
	found := m.findContexts(s, host)
	if len(found) != 1 || found[0].RepairText != "remove docker context dev-gone" {
		t.Fatalf("found %+v", found)
	}
	if err := found[0].Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := m.findContexts(s, host); len(left) != 0 {
		t.Errorf("after the repair: %+v", left)
	}
	if list, err := docker.Contexts(); err != nil || len(list) != 3 {
		t.Errorf("contexts %+v, %v", list, err)
	}
}
