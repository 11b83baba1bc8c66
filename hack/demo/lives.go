// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed71221737/dev/vmimage"
)

// prove looks at the running example from this host, and again after each thing that a machine can go through.
func (m *machineDemo) prove(ctx context.Context) error {
	if err := m.show(ctx); err != nil {
		return err
	}
	if err := m.editPage(ctx, "written on this host"); err != nil {
		return err
	}
	if err := m.reloads(ctx, "reload me"); err != nil {
		return err
	}
	before, err := read(ctx, m.address())
	if err != nil {
		return err
	}
	entry := signedEntry(before)
	if entry == "" {
		return fmt.Errorf("the page at %s lacks the entry that the demo made:\n%s", m.address(), plain(before))
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"suspended and resumed", m.suspend}, {"stopped and started", m.restart}, {"upgraded", m.upgrade}} {
		if err := step.do(ctx); err != nil {
			return err
		}
		page, err := m.await(ctx, m.address(), func(page string) bool { return strings.Contains(page, entry) })
		if err != nil {
			return fmt.Errorf("the entry %q is not on the page after the machine was %s: %w\n%s", entry, step.name, err, plain(page))
		}
		fmt.Print("  the page has its data:\n" + plain(page))
		if err := m.reloads(ctx, "written after the machine was "+step.name); err != nil {
			return err
		}
	}
	return nil
}

func (m *machineDemo) address() string { return "http://localhost:" + m.port + "/" }

// suspend saves the machine with all that runs in it, and lets it go on.
func (m *machineDemo) suspend(ctx context.Context) error {
	heading("dev machine suspend: saved with all that runs in it; it takes no memory and no processor")
	began := time.Now()
	if err := m.run(ctx, "machine", "suspend", m.machine); err != nil {
		return err
	}
	fmt.Printf("  it took %s\n", took(began))
	if err := m.run(ctx, "machine", "ls"); err != nil {
		return err
	}
	if err := m.is(ctx, "Saved"); err != nil {
		return err
	}
	heading("dev machine resume")
	began = time.Now()
	if err := m.run(ctx, "machine", "resume", m.machine); err != nil {
		return err
	}
	fmt.Printf("  it took %s\n", took(began))
	return m.is(ctx, "Running")
}

// restart stops the machine and starts it; its containers run again without being asked to, as their restart policy says.
func (m *machineDemo) restart(ctx context.Context) error {
	heading("dev machine stop")
	began := time.Now()
	if err := m.run(ctx, "machine", "stop", m.machine); err != nil {
		return err
	}
	fmt.Printf("  it took %s\n", took(began))
	if err := m.is(ctx, "Stopped"); err != nil {
		return err
	}
	if err := refused(ctx, m.address()); err != nil {
		return err
	}
	heading("dev machine start: no boot, and its containers run again, as restart: unless-stopped says")
	began = time.Now()
	if err := m.run(ctx, "machine", "start", m.machine); err != nil {
		return err
	}
	fmt.Printf("  it took %s\n", took(began))
	return nil
}

// upgrade boots the machine with another image.
func (m *machineDemo) upgrade(ctx context.Context) error {
	other, err := m.otherImage()
	if err != nil {
		return fmt.Errorf("make a second machine image: %w", err)
	}
	heading("dev machine upgrade: another image, the same disk, and a snapshot of it first")
	began := time.Now()
	if err := m.run(ctx, "machine", "upgrade", "--image", other, m.machine); err != nil {
		return err
	}
	fmt.Printf("  it took %s\n", took(began))
	if err := m.run(ctx, "machine", "snapshot", "ls", m.machine); err != nil {
		return err
	}
	return m.is(ctx, "Running")
}

// is makes sure what `dev machine status` says.
func (m *machineDemo) is(ctx context.Context, want string) error {
	var out strings.Builder
	cmd := m.command(ctx, "machine", "status", m.machine)
	cmd.Stdout = &out
	_ = cmd.Run() // it also tells by its exit status
	if got := strings.TrimSpace(out.String()); got != want {
		return fmt.Errorf("dev machine status says %q, want %q", got, want)
	}
	return nil
}

// otherImage is a folder with a machine image of the same parts as the demo's that counts as another one.
func (m *machineDemo) otherImage() (dir string, err error) {
	manifest, err := vmimage.Verify(m.image)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(m.home, "other")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	manifest.Kernel += "-other"
	manifest.Disk = nil
	for _, f := range manifest.Files {
		if err := copyFile(filepath.Join(dir, f.Name), filepath.Join(m.image, f.Name)); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, vmimage.ManifestName), data, 0o600)
}
