// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Uninstall stops the engine with its containers and removes what it installed;
// data only when asked. It refuses to remove data while something is mounted
// below it: that may be a folder of the user's.
func (s *Service) Uninstall(ctx context.Context, o UninstallOptions) error {
	if os.Geteuid() != 0 {
		return &PrivilegeError{Op: "uninstall"}
	}
	if err := s.Paths.prepare(); err != nil {
		return err
	}
	lock, err := waitLock(ctx, s.Paths.startLock())
	if err != nil {
		return err
	}
	defer lock.unlock()
	if _, err := s.Stop(ctx, StopOptions{}); err != nil {
		return err
	}
	settings, err := loadSettings(s.Paths)
	if err != nil {
		return err
	}
	if err := endContainers(ctx, s.Paths); err != nil {
		return err
	}
	if err := s.removeUnit(ctx); err != nil {
		return err
	}
	removeNetwork(ctx)
	return s.removeFiles(settings, o.Data)
}

// removeFiles removes programs, logs and run files, and with data everything.
func (s *Service) removeFiles(settings Settings, data bool) error {
	p := s.Paths
	dirs := []string{p.LogDir(), p.settings(), p.Run}
	if p.Bundles == "" { // a shared folder is somebody else's to remove
		dirs = append(dirs, p.bundles())
	}
	if data {
		dirs = append(dirs, cmp.Or(settings.dataRoot("docker"), p.dockerData()), cmp.Or(settings.dataRoot("containerd"), p.containerdData()))
	}
	for _, dir := range dirs {
		if err := unmountBelow(dir); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("uninstall the engine: %w", err)
		}
	}
	_ = os.Remove(p.Root) // only if nothing is left in it
	return nil
}

// unmountBelow unmounts everything below a folder, deepest first.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	slices.Reverse(mounts) // later mounts lie above earlier ones
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("remove %q: %q is mounted there and in use: %w", dir, m, err)
		}
	}
	left, err := mountsBelow(dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("remove %q: %q is mounted there", dir, left[0])
	}
	return err
}

// mountsBelow lists what is mounted at or below a folder, oldest first.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return parseMounts(string(data), dir), nil
}

// parseMounts picks the mount points at or below dir out of a mountinfo file.
func parseMounts(mountinfo, dir string) []string {
	var found []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := unescapeMount(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	return found
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// endContainers ends containers that run without an engine, after a stop that
// kept them: there is nobody to ask any more.
func endContainers(ctx context.Context, p Paths) error {
	shims, err := orphanShims(p)
	if err != nil {
		return err
	}
	all, err := processesUnder("")
	if err != nil {
		return err
	}
	var errs []error
	for _, shim := range shims {
		for _, proc := range all {
			if parent(proc.pid) == shim.pid {
				errs = append(errs, proc.end(ctx, 10*time.Second))
			}
		}
		errs = append(errs, shim.end(ctx, 2*time.Second))
	}
	return errors.Join(errs...)
}

// orphanShims are the shims of our containers.
func orphanShims(p Paths) ([]process, error) {
	all, err := processesUnder(p.programs())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(proc process) bool { return !isShim(p, proc) }), nil
}

// Orphans is the number of containers that run although the engine does not.
func (s *Service) Orphans() int {
	shims, err := orphanShims(s.Paths)
	if err != nil || isLocked(s.Paths.runLock()) {
		return 0
	}
	return len(shims)
}

// parent is the parent of a process; 0 when it is gone.
func parent(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(fields[1]) // the kernel writes a number
	return n
}

// removeNetwork removes what dockerd leaves in the network, as far as it is
// easy: bridges and rules made with iptables vanish at the next boot.
func removeNetwork(ctx context.Context) {
	for _, table := range [][]string{{"ip", "docker-bridges"}, {"ip6", "docker-bridges"}, {"inet", guardTable}} {
		// there may be none, and no nft either
		_, _ = tool(ctx, "", "nft", "delete", "table", table[0], table[1])
	}
}
