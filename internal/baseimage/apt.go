// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package baseimage

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// apt is where the packages of the suite come from.
type apt struct {
	sources []string // one-line entries for mmdebstrap; none: its own default
	options []string // apt's, as written in its configuration
}

// https says whether a source needs certificates inside the image.
func (a apt) https() bool {
	return slices.ContainsFunc(a.sources, func(s string) bool { return strings.Contains(s, "https://") })
}

// hostApt reads the host's apt: its mirrors of the suite, if it has any, its proxy, and how strictly it takes dates. A host without apt has
// mmdebstrap's defaults.
func hostApt(ctx context.Context) (apt, error) {
	var a apt
	files, err := filepath.Glob("/etc/apt/sources.list.d/*")
	if err != nil {
		return a, err
	}
	for _, name := range append([]string{"/etc/apt/sources.list"}, files...) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // not there, or a folder: not a source
		}
		switch filepath.Ext(name) {
		case ".list":
			a.sources = append(a.sources, oneLineSources(string(text))...)
		case ".sources":
			a.sources = append(a.sources, deb822Sources(string(text))...)
		}
	}
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err == nil {
		a.options = aptOptions(string(out))
	}
	return a, nil
}

// oneLineSources picks the suite's entries from a file in sources.list format: deb [options] URI suite component…
func oneLineSources(text string) []string {
	var found []string
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		options := ""
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
			options, rest, _ = strings.Cut(rest[1:], "]")
		}
		fields := strings.Fields(rest)
		if len(fields) > 2 && debians(fields[1], fields[2:], options) {
			found = append(found, entry(fields[0], fields[1]))
		}
	}
	return found
}

// deb822Sources picks the suite's entries from a file of stanzas with fields.
func deb822Sources(text string) []string {
	var found []string
	for _, stanza := range strings.Split(text, "\n\n") {
		fields := map[string]string{}
		key := ""
		for _, line := range strings.Split(stanza, "\n") {
			switch {
			case strings.HasPrefix(line, "#"):
			case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
				fields[key] += line
			default:
				name, value, _ := strings.Cut(line, ":")
				key = strings.ToLower(strings.TrimSpace(name))
				fields[key] = strings.TrimSpace(value)
			}
		}
		if !slices.Contains(strings.Fields(fields["types"]), "deb") || strings.EqualFold(fields["enabled"], "no") {
			continue
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, s := range strings.Fields(fields["suites"]) {
				if debians(s, strings.Fields(fields["components"]), fields["signed-by"]) {
					found = append(found, entry(uri, s))
				}
			}
		}
	}
	return found
}

// debians says whether an entry is Debian's own: others use its suite names, but have components and keys of their own.
func debians(name string, components []string, key string) bool {
	own := []string{suite, suite + "-updates", suite + "-security"}
	foreign := strings.Contains(strings.ToLower(key), "signed-by") || strings.Contains(key, "/")
	if strings.Contains(key, "debian-archive") {
		foreign = false
	}
	return slices.Contains(own, name) && slices.Contains(components, "main") && !foreign
}

func entry(uri, name string) string { return fmt.Sprintf("deb %s %s main", uri, name) }

// aptOptions picks, from apt-config's dump, what decides whether packages can be had at all. A proxy on the host's own loopback would not be
// found from a container.
func aptOptions(dump string) []string {
	wanted := []string{"Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date"}
	var found []string
	for lines := bufio.NewScanner(strings.NewReader(dump)); lines.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSuffix(lines.Text(), ";"), " ")
		local := strings.Contains(value, "//localhost") || strings.Contains(value, "//127.") || strings.Contains(value, "//[::1]")
		if slices.Contains(wanted, key) && value != `""` && !local {
			found = append(found, key+" "+value)
		}
	}
	return found
}
