// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// virtiofs has no way to tell the guest's kernel that something has changed on the host. A kernel that believes what it knows for long is made to ask again from
// here, name by name: a link that cannot come about, as it would lead from one file system to another (EXDEV), has a FUSE file system look its name up anew
// before that is found out, drop a name that stands for something else now, and take over the attributes; other times or sizes have it drop the content.

// elsewhere is a place on no share, where links to be refused begin.
const elsewhere = "/proc"

// Stale makes the kernel ask the host again for what has changed in a mount.
func Stale(p proto.Stale) error {
	if !filepath.IsAbs(p.Target) {
		return &proto.Error{Code: proto.CodeBad, Text: fmt.Sprintf("ask for changes in %q: not a mount of the host's", p.Target)}
	}
	here, share, err := findShare(p.Target)
	if err != nil {
		return fmt.Errorf("ask for changes in %q: %w", p.Target, err)
	}
	if share.at == "" {
		return &proto.Error{Code: proto.CodeFailed, Text: fmt.Sprintf("ask for changes in %q: no share is mounted there", p.Target)}
	}
	names := p.Names
	if p.All {
		if err := dropUnused(here, share); err != nil {
			return err
		}
		if names, err = inUse(here, share.device); err != nil {
			return fmt.Errorf("ask for changes in %q: %w", p.Target, err)
		}
	}
	root, err := unix.Open(p.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ask for changes in %q: %w", p.Target, err)
	}
	defer unix.Close(root)
	if err := refresh(root, names); err != nil {
		return fmt.Errorf("ask for changes in %q: %w", p.Target, err)
	}
	return nil
}

// mountTries is how often the list of mounts is read: it comes in pieces, and a mount may be missed while others come and go.
const mountTries = 5

// findShare reads the list of mounts, and finds what is mounted at the target. The last one there is on top.
func findShare(target string) (here []mountEntry, share mountEntry, err error) {
	for range mountTries {
		if here, err = readMounts("/proc/self/mountinfo"); err != nil {
			return nil, share, err
		}
		for _, m := range here {
			if m.at == target && (strings.HasPrefix(m.kind, "virtiofs") || strings.HasPrefix(m.kind, "fuse")) {
				share = m
			}
		}
		if share.at != "" {
			break
		}
	}
	return here, share, nil
}

// dropUnused has the kernel forget all of a share, and of what the host has mounted in it, that no program uses: that is what mounting it again with the same options does first.
func dropUnused(here []mountEntry, share mountEntry) error {
	for _, m := range here {
		below := strings.HasPrefix(m.at, share.at+"/") && m.source == "none" // which is what the kernel calls the source of what it mounts itself
		if m.kind != share.kind || m.at != share.at && !below {
			continue
		}
		if err := unix.Mount("", m.at, "", unix.MS_REMOUNT|remountFlags(m.options), ""); err != nil {
			return fmt.Errorf("forget %q: %w", m.at, err)
		}
	}
	return nil
}

// remountFlags are what keeps a mount's options as they are.
func remountFlags(options []string) (flags uintptr) {
	for _, o := range options {
		flags |= map[string]uintptr{
			"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME,
			"nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		}[o]
	}
	return flags
}

// inUse are the names of a file system that programs use, or that are mounted elsewhere, with the folders that they are in: the kernel keeps these. here are this side's own mounts.
func inUse(here []mountEntry, device string) ([]proto.StaleName, error) {
	spaces, own, err := allSpaces()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{"": true}
	for space, pids := range spaces {
		mounts, err := here, error(nil)
		if space != own {
			mounts, err = readMounts(fmt.Sprintf("/proc/%d/mountinfo", pids[0]))
		}
		if err != nil || !slices.ContainsFunc(mounts, func(m mountEntry) bool { return m.device == device }) {
			continue // it has ended, or has nothing of it
		}
		for _, m := range mounts {
			if m.device == device {
				addUsed(used, m.root)
			}
		}
		for _, pid := range pids {
			for _, name := range openedBy(pid) {
				if at, ok := within(mounts, device, name); ok {
					addUsed(used, at)
				}
			}
		}
	}
	names := make([]proto.StaleName, 0, len(used))
	for _, name := range slices.Sorted(maps.Keys(used)) {
		names = append(names, proto.StaleName{Path: []byte(name), Listed: true})
	}
	return names, nil
}

// addUsed adds a path of a file system, and the folders that it is in. One that the kernel calls deleted has no name any more.
func addUsed(used map[string]bool, name string) {
	name = strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(name, "//deleted"), " (deleted)"), "/")
	for ; name != "" && name != "."; name = path.Dir(name) {
		used[name] = true
	}
}

// within is where a path of a program's lies in a file system, if it does; the mounts are the program's.
func within(mounts []mountEntry, device, name string) (string, bool) {
	var on mountEntry
	for _, m := range mounts {
		if at := strings.TrimSuffix(m.at, "/"); len(m.at) >= len(on.at) && (name == at || strings.HasPrefix(name, at+"/")) {
			on = m
		}
	}
	if on.device != device {
		return "", false
	}
	return path.Join(on.root, strings.TrimPrefix(name, strings.TrimSuffix(on.at, "/"))), true
}

// openedBy are the paths of what a program has open, runs, or is in.
func openedBy(pid int) (names []string) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	links := []string{"cwd", "root", "exe"}
	files, _ := os.ReadDir(dir + "fd") // it may have ended
	for _, f := range files {
		links = append(links, "fd/"+f.Name())
	}
	for _, link := range links {
		if name, err := os.Readlink(dir + link); err == nil && filepath.IsAbs(name) {
			names = append(names, name)
		}
	}
	maps, _ := os.ReadFile(dir + "maps") // as above
	for line := range strings.Lines(string(maps)) {
		if i := strings.IndexByte(line, '/'); i >= 0 {
			names = append(names, strings.TrimSuffix(line[i:], "\n"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// refresh asks for names, folder by folder, and for folders before what is in them. Names and folders that are gone are what it is about.
func refresh(root int, names []proto.StaleName) error {
	byFolder := map[string][]proto.StaleName{}
	for _, n := range names {
		at := string(n.Path)
		if at == "" {
			byFolder[""] = append(byFolder[""], proto.StaleName{Listed: true})
			continue
		}
		folder, base := path.Split(at)
		folder = strings.TrimSuffix(folder, "/")
		byFolder[folder] = append(byFolder[folder], proto.StaleName{Path: []byte(base), Listed: n.Listed, Content: n.Content})
	}
	depth := func(folder string) int {
		return len(folder) - len(strings.ReplaceAll(folder, "/", "")) + min(len(folder), 1)
	}
	folders := slices.SortedFunc(maps.Keys(byFolder), func(a, b string) int { return cmp.Or(depth(a)-depth(b), strings.Compare(a, b)) })
	var errs []error
	for _, folder := range folders {
		errs = append(errs, refreshFolder(root, folder, byFolder[folder]))
	}
	return errors.Join(errs...)
}

// refreshFolder asks for names in a folder, and for the folder itself where its list has changed.
func refreshFolder(root int, folder string, names []proto.StaleName) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(root, cmp.Or(folder, "."), &how)
	if err != nil {
		return unlessGone(folder, err)
	}
	defer unix.Close(fd)
	if slices.ContainsFunc(names, func(n proto.StaleName) bool { return n.Listed }) {
		var now unix.Statx_t
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &now)
		err = unlessGone(folder, err)
	}
	for _, n := range names {
		if len(n.Path) > 0 {
			err = errors.Join(err, refreshName(fd, string(n.Path), n.Content))
		}
	}
	return err
}

// refreshName has the kernel look a name up anew. Content of the same size and time, which it would keep, is dropped where the host says that it is another.
func refreshName(folder int, name string, content bool) error {
	var before unix.Statx_t
	if content {
		var err error
		before, err = known(folder, name)
		content = err == nil && before.Mode&unix.S_IFMT == unix.S_IFREG
	}
	err := unix.Linkat(unix.AT_FDCWD, elsewhere, folder, name, 0)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EROFS): // the name is free; nothing was made
		return nil
	case !errors.Is(err, unix.EEXIST):
		return unlessGone(name, err)
	case !content:
		return nil
	}
	after, err := known(folder, name)
	if err == nil && after.Ino == before.Ino && after.Size == before.Size && after.Mtime == before.Mtime {
		err = dropContent(folder, name)
	}
	return unlessGone(name, err)
}

// known is what the kernel believes of a name.
func known(folder int, name string) (st unix.Statx_t, err error) {
	err = unix.Statx(folder, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
	return st, err
}

func dropContent(folder int, name string) error {
	fd, err := unix.Openat(folder, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), unix.Close(fd))
}

// unlessGone passes errors on that do not say that there is nothing, or nothing that may be looked at.
func unlessGone(name string, err error) error {
	for _, fine := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES, unix.ENAMETOOLONG, unix.ESTALE} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("look at %q: %w", name, err)
	}
	return nil
}
