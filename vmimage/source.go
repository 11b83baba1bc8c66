// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bufio"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// snapshotBase keeps every version of every package that Debian ever had, by time.
const snapshotBase = "https://snapshot.debian.org/archive/"

// currentHosts serve the archives as they are now, where the host names no mirror.
var currentHosts = map[string]string{"debian": "ftp.debian.org", "debian-security": "security.debian.org"}

// Mirrors finds the base URLs of an archive, in the order to try.
type Mirrors struct {
	// Given are the user's mirrors: base URLs below which "debian" and "debian-security" lie. They come first.
	Given []string
	// Host is the root of the host's file system; its apt sources are used where it is a Debian. Nil: none.
	Host fs.FS
}

// URLs returns the base URLs (with a slash at the end) of an archive as it was at a time; the zero time means as it is now.
func (m Mirrors) URLs(archive string, at time.Time) []string {
	var urls []string
	for _, g := range m.Given {
		urls = append(urls, strings.TrimSuffix(g, "/")+"/"+archive+"/")
	}
	if m.Host != nil {
		urls = append(urls, hostSources(m.Host, archive)...)
	}
	switch host, ok := currentHosts[archive]; {
	case !at.IsZero():
		urls = append(urls, snapshotBase+archive+"/"+at.UTC().Format("20060102T150405Z")+"/")
	case ok:
		urls = append(urls, "https://"+host+"/"+archive+"/")
	}
	return compact(urls)
}

// compact drops doubles, keeping the first.
func compact(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// hostSources reads the host's apt sources and returns the base URLs whose last path element is the archive's name; a host that is no Debian, or
// whose sources cannot be read, has none.
func hostSources(host fs.FS, archive string) []string {
	if _, err := fs.Stat(host, "etc/debian_version"); err != nil {
		return nil
	}
	var urls []string
	names, _ := fs.Glob(host, "etc/apt/sources.list.d/*")
	for _, name := range append([]string{"etc/apt/sources.list"}, names...) {
		data, err := fs.ReadFile(host, name)
		if err != nil {
			continue
		}
		switch path.Ext(name) {
		case ".list":
			urls = append(urls, oneLineSources(string(data))...)
		case ".sources":
			urls = append(urls, deb822Sources(string(data))...)
		}
	}
	var found []string
	for _, u := range urls {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || path.Base(parsed.Path) != archive {
			continue
		}
		found = append(found, strings.TrimSuffix(u, "/")+"/")
	}
	return found
}

// oneLineSources finds the URLs of "deb [options] URL suite component…" lines.
func oneLineSources(text string) []string {
	var urls []string
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		if i := strings.IndexByte(line, '['); i >= 0 {
			if j := strings.IndexByte(line, ']'); j > i {
				line = line[:i] + line[j+1:]
			}
		}
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "deb" {
			urls = append(urls, f[1])
		}
	}
	return urls
}

// deb822Sources finds the URLs of URIs fields.
func deb822Sources(text string) []string {
	var urls []string
	for _, line := range strings.Split(text, "\n") {
		if v, ok := strings.CutPrefix(line, "URIs:"); ok {
			urls = append(urls, strings.Fields(v)...)
		}
	}
	return urls
}
