// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"context"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// TestVMBoots boots both architectures directly, and amd64 from the UEFI disk.
func TestVMBoots(t *testing.T) {
	for name, c := range map[string]struct {
		arch, program string
		uefi          bool
	}{
		"amd64-q35":  {"amd64", "qemu-system-x86_64", false},
		"amd64-uefi": {"amd64", "qemu-system-x86_64", true},
		"arm64-virt": {"arm64", "qemu-system-aarch64", false},
	} {
		t.Run(name, func(t *testing.T) {
			requireVM(t, c.program)
			m := newVM(t, c.arch, testImage(t, c.arch))
			m.uefi = c.uefi
			m.start()
			m.login()
			t.Logf("engine answered after %.1f s", m.awaitEngine().Seconds())
			var info proto.Info
			control := m.control()
			if err := control.Call(context.Background(), proto.MethodInfo, nil, &info); err != nil {
				t.Fatal(err)
			}
			for _, s := range info.Status.Stages {
				t.Logf("%8.3f %s", s.Seconds, s.Name)
			}
			if info.Hostname != "testvm" || info.Arch != c.arch || info.Status.DataSchema != 1 {
				t.Errorf("info: %+v", info)
			}
			var health proto.Health
			if err := control.Call(context.Background(), proto.MethodHealth, nil, &health); err != nil {
				t.Fatal(err)
			}
			if !health.OK || len(health.Warnings) > 0 {
				t.Errorf("health: %+v\n%s", health, m.console())
			}
			var memory proto.Memory
			if err := control.Call(context.Background(), proto.MethodMemory, proto.MemoryRequest{DropCaches: true}, &memory); err != nil {
				t.Fatal(err)
			}
			t.Logf("not available at idle: %d MiB\n%s", (memory.Total-memory.Available)>>20, m.sh("free -m; ps -o rss,vsz,args; cat /proc/meminfo"))
			m.powerOff()
		})
	}
}
