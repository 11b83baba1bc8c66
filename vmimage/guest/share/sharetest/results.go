// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// Results are what held of one way to have files, as they are published.
type Results struct {
	// Way is disk, fuse, fuse-vm or virtiofs-vm.
	Way, Date, Kernel, How string
	// Groups have the numbers of cases by their group.
	Groups           map[string]Counts
	Failed, NotTried []Finding `json:",omitempty"`
}

// Counts are numbers of cases.
type Counts struct{ Passed, Failed, NotTried int }

// Finding is a case that did not pass, with the reason.
type Finding struct{ Group, Name, Why string }

// write puts results into a file.
func (r *Results) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// ReadResults reads a file that [Record] wrote.
func ReadResults(path string) (Results, error) {
	var r Results
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// Update replaces in a file what is known of the groups of cases that r has, and keeps what it says of others; without a file it writes r.
func (r *Results) Update(path string) error {
	old, err := ReadResults(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r.write(path)
	}
	if err != nil {
		return err
	}
	replaced := func(f Finding) bool { _, mine := r.Groups[f.Group]; return mine }
	next := *r
	next.Groups = maps.Clone(old.Groups)
	maps.Copy(next.Groups, r.Groups)
	next.Failed = append(slices.DeleteFunc(old.Failed, replaced), r.Failed...)
	next.NotTried = append(slices.DeleteFunc(old.NotTried, replaced), r.NotTried...)
	if len(r.Groups) < len(next.Groups) && r.Date != old.Date {
		next.How += ", some cases on " + old.Date
	}
	return next.write(path)
}

// ways are the columns of the table.
var ways = []struct{ way, title string }{
	{"disk", "a disk"}, {"fuse", "`fuse`, no machine"}, {"fuse-vm", "`fuse`, in a machine"}, {"virtiofs-vm", "`virtiofs`, in a machine"},
}

// rows are the table's, with the groups of cases that each one sums up.
var rows = []struct {
	title  string
	groups []string
}{
	{"chmod, chown, lchown, utimensat, stat, statfs", []string{"chmod", "chown", "lchown", "utimensat", "stat", "statfs"}},
	{"open, creat, write, truncate, fallocate, lseek, copy_file_range", []string{"open", "creat", "write", "truncate", "fallocate", "lseek", "copy_file_range"}},
	{"mkdir, mkfifo, mknod, symlink, link", []string{"mkdir", "mkfifo", "mknod", "symlink", "link"}},
	{"unlink, rmdir, rename", []string{"unlink", "rmdir", "rename"}},
	{"kinds of files: block and character devices, fifo, file, folder, socket, link", []string{"file", "folder", "symbolic link", "fifo", "socket", "character device", "block device"}},
	{"flock, fcntl, mmap", []string{"flock", "fcntl", "mmap"}},
	{"names: newlines, invalid UTF-8, 255 bytes, case, …", []string{"names"}},
	{"what tools rely on: scripts, extended attributes, O_TMPFILE, 10,000 files, growing files, …", []string{"tools"}},
	{"programs: npm, SQLite, rsync, git, tar, make, go, Python, flock, …", []string{"programs"}},
}

// Table is what is published of results, in Markdown.
func Table(all []Results) string {
	by := map[string]Results{}
	for _, r := range all {
		by[r.Way] = r
	}
	var b strings.Builder
	b.WriteString("| calls |")
	for _, w := range ways {
		fmt.Fprintf(&b, " %s |", w.title)
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(ways)) + "|\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", row.title)
		for _, w := range ways {
			fmt.Fprintf(&b, " %s |", cell(by[w.way], row.groups))
		}
		b.WriteByte('\n')
	}
	b.WriteString("| run |")
	for _, w := range ways {
		fmt.Fprintf(&b, " %s |", strings.TrimSpace(fmt.Sprintf("%s, Linux %s %s", by[w.way].Date, by[w.way].Kernel, by[w.way].How)))
	}
	b.WriteString("\n")
	for _, w := range ways {
		b.WriteString(findings(w.title, "Failed", by[w.way].Failed) + findings(w.title, "Not tried", by[w.way].NotTried))
	}
	return b.String()
}

// cell says how many cases of some groups passed.
func cell(r Results, groups []string) string {
	var sum Counts
	for g, n := range r.Groups {
		if slices.Contains(groups, g) {
			sum.Passed, sum.Failed, sum.NotTried = sum.Passed+n.Passed, sum.Failed+n.Failed, sum.NotTried+n.NotTried
		}
	}
	if sum == (Counts{}) {
		return "not run"
	}
	if tried := sum.Passed + sum.Failed; sum.Failed > 0 || sum.NotTried > 0 {
		return fmt.Sprintf("%d of %d", sum.Passed, tried+sum.NotTried)
	}
	return fmt.Sprint(sum.Passed)
}

// findings lists cases that did not pass.
func findings(way, what string, list []Finding) string {
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s:\n\n", what, way)
	for _, f := range list {
		fmt.Fprintf(&b, "- %s: %s: %s\n", f.Group, f.Name, strings.ReplaceAll(f.Why, "\n", " "))
	}
	return b.String()
}
