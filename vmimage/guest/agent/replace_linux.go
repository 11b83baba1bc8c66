// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/internal/lazyregexp"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// A file system whose server has died stays in containers that were started with it: their mounts are copies of their own. What can be done without a restart
// is to put the new one on top. Programs that have a folder or file of the old one open keep that, and it answers nothing but errors.

// mountEntry is a line of /proc/PID/mountinfo (proc(5)).
type mountEntry struct {
	id, parent int
	device     string // major:minor
	root, at   string
	options    []string
	follows    bool // it gets what is mounted elsewhere
	// kind and source are the file system's type, and what it was mounted from.
	kind, source string
}

func readMounts(file string) ([]mountEntry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseMounts(string(data)), nil
}

func parseMounts(text string) (list []mountEntry) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		id, err1 := strconv.Atoi(f[0])
		parent, err2 := strconv.Atoi(f[1])
		if errors.Join(err1, err2) != nil {
			continue
		}
		m := mountEntry{id: id, parent: parent, device: f[2], root: unescape.Replace(f[3]), at: unescape.Replace(f[4]), options: strings.Split(f[5], ",")}
		for i, tag := range f[6:] {
			if tag == "-" && len(f) > 6+i+2 {
				m.kind, m.source = f[6+i+1], unescape.Replace(f[6+i+2])
				break
			}
			m.follows = m.follows || strings.HasPrefix(tag, "master:")
		}
		list = append(list, m)
	}
	return list
}

// copied is a mount to be made in a container.
type copied struct {
	from, at string
	options  []string
	follows  bool
}

// replacement is a dead file system, and what takes its place.
type replacement struct {
	device string
	by     mountEntry
}

// dead says whether a mount is of the dead file system. Its number may be another one's by now: kind and source tell.
func (r replacement) dead(m mountEntry) bool {
	return m.device == r.device && m.device != r.by.device && m.kind == r.by.kind && m.source == r.by.source
}

// findReplacement finds what is mounted at the target now.
func findReplacement(here []mountEntry, p proto.Replace) (replacement, error) {
	for _, m := range slices.Backward(here) {
		if m.at == p.Target {
			return replacement{p.Device, m}, nil
		}
	}
	return replacement{}, fmt.Errorf("replace mounts: nothing is mounted at %q", p.Target)
}

// planReplacement is what to mount in a container in place of what it has of a dead device, and of what is mounted within that; here are this side's own
// mounts, from which it is taken. There is nothing to do where that has been done. lost is a place for which there is nothing.
func planReplacement(mounts, here []mountEntry, r replacement) (plan []copied, lost string) {
	gone := map[int]bool{} // mounts that cannot be reached any more
	for _, m := range mounts {
		switch {
		case r.dead(m) && covered(mounts, m):
		case r.dead(m):
			gone[m.id] = true
			plan = append(plan, copied{filepath.Join(r.by.at, m.root), m.at, m.options, m.follows})
		case gone[m.parent]:
			gone[m.id] = true
			from := reach(here, m)
			if from == "" {
				return nil, m.at
			}
			plan = append(plan, copied{from, m.at, m.options, m.follows})
		}
	}
	return plan, ""
}

// covered says whether another mount lies right upon one.
func covered(mounts []mountEntry, m mountEntry) bool {
	return slices.ContainsFunc(mounts, func(o mountEntry) bool { return o.parent == m.id && o.at == m.at })
}

// reach is a path on this side to what a mount shows; "": there is none.
func reach(here []mountEntry, m mountEntry) string {
	for _, h := range here {
		if h.device != m.device {
			continue
		}
		if rest, ok := strings.CutPrefix(m.root, strings.TrimSuffix(h.root, "/")); ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(h.at, rest)
		}
	}
	return ""
}

// ReplaceMounts gives containers what took the place of a file system that is dead.
func ReplaceMounts(p proto.Replace) (done proto.Replaced, err error) {
	if p.Device == "" || !filepath.IsAbs(p.Target) {
		return done, &proto.Error{Code: proto.CodeBad, Text: "replace mounts: which, and by what?"}
	}
	here, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return done, fmt.Errorf("replace mounts: %w", err)
	}
	r, err := findReplacement(here, p)
	if err != nil {
		return done, err
	}
	err = eachSpace(r.dead, func(pids []int, mounts, old []mountEntry) {
		container := containerOf(pids[0])
		plan, lost := planReplacement(mounts, here, r)
		if lost != "" || place(plan, pids[0]) != nil || anyUses(pids, old) {
			done.Stale = append(done.Stale, container)
		} else if len(plan) > 0 {
			done.Repaired = append(done.Repaired, container)
		}
	})
	slices.Sort(done.Repaired)
	slices.Sort(done.Stale)
	return done, err
}

// usersOf are the containers in which programs use a file system.
func usersOf(device string) (containers []string, err error) {
	of := func(m mountEntry) bool { return m.device == device }
	err = eachSpace(of, func(pids []int, _, its []mountEntry) {
		if anyUses(pids, its) {
			containers = append(containers, containerOf(pids[0]))
		}
	})
	slices.Sort(containers)
	return containers, err
}

// eachSpace calls f with the programs and mounts of each container that has mounts which are looked for.
func eachSpace(of func(mountEntry) bool, f func(pids []int, mounts, found []mountEntry)) error {
	spaces, err := mountSpaces()
	if err != nil {
		return fmt.Errorf("look at mounts of containers: %w", err)
	}
	for _, pids := range spaces {
		mounts, err := readMounts(fmt.Sprintf("/proc/%d/mountinfo", pids[0]))
		found := slices.DeleteFunc(slices.Clone(mounts), func(m mountEntry) bool { return !of(m) })
		if err == nil && len(found) > 0 { // otherwise it has ended, or has nothing of it
			f(pids, mounts, found)
		}
	}
	return nil
}

func anyUses(pids []int, mounts []mountEntry) bool {
	return slices.ContainsFunc(pids, func(pid int) bool { return uses(pid, mounts) })
}

// mountSpaces are the programs of each mount namespace but this one.
func mountSpaces() (map[string][]int, error) {
	spaces, own, err := allSpaces()
	delete(spaces, own)
	return spaces, err
}

// allSpaces are the programs of each mount namespace; own is the name of this one.
func allSpaces() (spaces map[string][]int, own string, err error) {
	if own, err = os.Readlink("/proc/self/ns/mnt"); err != nil {
		return nil, "", err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, "", err
	}
	spaces = map[string][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err == nil {
			spaces[space] = append(spaces[space], pid)
		}
	}
	return spaces, own, nil
}

// containerID is how engines name control groups.
var containerID = lazyregexp.New(`[0-9a-f]{64}`)

// containerOf is the container that a program belongs to, or what tells it otherwise.
func containerOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may have ended
	if id := containerID.Get().FindString(string(text)); id != "" {
		return id
	}
	return "process " + strconv.Itoa(pid)
}

// place mounts copies in the namespace of a program. Copies are made before the first is put there.
func place(plan []copied, pid int) error {
	if len(plan) == 0 {
		return nil
	}
	var trees []int
	defer func() {
		for _, fd := range trees {
			_ = unix.Close(fd)
		}
	}()
	for _, c := range plan {
		fd, err := cloneMount(c)
		if err != nil {
			return err
		}
		trees = append(trees, fd)
	}
	space, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(space)
	return apart(func() error {
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(space, unix.CLONE_NEWNS)); err != nil {
			return err
		}
		for i, c := range plan {
			if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, c.at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return fmt.Errorf("mount at %q: %w", c.at, err)
			}
		}
		return nil
	})
}

// mountFlags are the options of a mount that a copy needs to have, too.
var mountFlags = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
}

// cloneMount makes a copy that is mounted nowhere yet.
func cloneMount(c copied) (fd int, err error) {
	fd, err = unix.OpenTree(unix.AT_FDCWD, c.from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("copy the mount of %q: %w", c.from, err)
	}
	for _, propagation := range []uint64{unix.MS_SLAVE, unix.MS_PRIVATE} {
		attr := unix.MountAttr{Propagation: propagation}
		for _, o := range c.options {
			attr.Attr_set |= mountFlags[o]
		}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return -1, errors.Join(fmt.Errorf("copy the mount of %q: %w", c.from, err), unix.Close(fd))
		}
		if c.follows {
			break
		}
	}
	return fd, nil
}

// watchedDevice is how a file system (major:minor) is named where programs watch files (inotify in proc(5)).
func watchedDevice(device string) string {
	first, second, _ := strings.Cut(device, ":")
	major, _ := strconv.Atoi(first) // the kernel's own numbers
	minor, _ := strconv.Atoi(second)
	return strconv.FormatInt(int64(major)<<20|int64(minor), 16)
}

// uses says whether a program has something of a mount open, or waits for changes in it.
func uses(pid int, mounts []mountEntry) bool {
	is := func(info string) bool {
		data, _ := os.ReadFile(info) // it may have been closed
		for line := range strings.Lines(string(data)) {
			name, value, _ := strings.Cut(line, ":")
			id, err := strconv.Atoi(strings.TrimSpace(value))
			if name == "mnt_id" && err == nil && slices.ContainsFunc(mounts, func(m mountEntry) bool { return m.id == id }) {
				return true
			}
			if watched := " sdev:" + watchedDevice(mounts[0].device) + " "; strings.HasPrefix(name, "inotify ") && strings.Contains(line, watched) {
				return true
			}
		}
		return false
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	for _, name := range []string{"cwd", "root", "exe"} {
		fd, err := unix.Open(dir+name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it has none
		}
		found := is(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		_ = unix.Close(fd)
		if found {
			return true
		}
	}
	files, _ := os.ReadDir(dir + "fdinfo") // it may have ended
	return slices.ContainsFunc(files, func(f os.DirEntry) bool { return is(dir + "fdinfo/" + f.Name()) })
}
