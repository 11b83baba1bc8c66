// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"context"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// TestVMBoots boots both architectures on every kind of machine, up to the engine where the image has one.
func TestVMBoots(t *testing.T) {
	for _, c := range []struct {
		name, arch, program string
		change              func(*vm)
		slow                bool
	}{
		{"amd64-q35", "amd64", "qemu-system-x86_64", func(*vm) {}, true}, // TestVMRunsContainersAndKeepsVolumes is one, too
		{"amd64-uefi", "amd64", "qemu-system-x86_64", func(m *vm) { m.uefi = true }, false},
		{"amd64-microvm", "amd64", "qemu-system-x86_64", func(m *vm) { m.microvm = true }, false},
		{"arm64-virt", "arm64", "qemu-system-aarch64", func(*vm) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			requireVM(t, c.program)
			if c.slow {
				requireSlowVM(t)
			}
			m := newVM(t, c.arch, testImage(t, c.arch))
			c.change(m)
			m.start()
			m.login()
			engine := hasEngine(t, m.image)
			if engine {
				t.Logf("engine answered after %.1f s", m.awaitEngine().Seconds())
			}
			var info proto.Info
			control := m.control()
			if err := control.Call(context.Background(), proto.MethodInfo, nil, &info); err != nil {
				t.Fatal(err)
			}
			for _, s := range info.Status.Stages {
				t.Logf("%8.3f %s", s.Seconds, s.Name)
			}
			if info.Hostname != "testvm" || info.Arch != c.arch {
				t.Errorf("info: %+v", info)
			}
			health := m.settled()
			if health.Engine != engine || len(health.Problems) > 0 || len(health.Warnings) > 0 {
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
