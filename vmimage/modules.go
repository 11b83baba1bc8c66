// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// module is a kernel module and what its .modinfo section says.
type module struct {
	name, file string
	// needs are modules without which it does not load, pre and post soft dependencies: nice to have before and after it.
	needs, pre, post []string
	aliases          []string
}

// moduleName is how the kernel spells a name: a file's dashes are underscores.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// parseModule reads a module's .modinfo section.
func parseModule(file string, data []byte) (module, error) {
	m := module{file: file, name: moduleName(strings.TrimSuffix(path.Base(file), ".ko"))}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return m, fmt.Errorf("read module %q: %w", file, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return m, fmt.Errorf("read module %q: it has no .modinfo section", file)
	}
	info, err := section.Data()
	if err != nil {
		return m, fmt.Errorf("read module %q: %w", file, err)
	}
	m.addInfo(info)
	return m, nil
}

// addInfo reads key=value strings that end in NUL.
func (m *module) addInfo(info []byte) {
	for _, field := range strings.Split(string(info), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					m.needs = append(m.needs, moduleName(d))
				}
			}
		case "softdep":
			m.addSoft(value)
		case "alias":
			if !strings.ContainsAny(value, " \n") {
				m.aliases = append(m.aliases, value)
			}
		}
	}
}

// addSoft reads "pre: a b post: c".
func (m *module) addSoft(value string) {
	into := &m.pre
	for _, word := range strings.Fields(value) {
		switch word {
		case "pre:":
			into = &m.pre
		case "post:":
			into = &m.post
		default:
			*into = append(*into, moduleName(word))
		}
	}
}

// moduleSet are the modules of one kernel.
type moduleSet struct {
	byName  map[string]*module
	byAlias map[string][]string
	builtin []string
}

// newModuleSet reads all modules of a tree in which a kernel package was unpacked.
func newModuleSet(t *tree, dir string) (*moduleSet, error) {
	set := &moduleSet{byName: map[string]*module{}, byAlias: map[string][]string{}}
	for _, p := range t.glob(dir+"/", ".ko") {
		data, err := t.read(p)
		if err != nil {
			return nil, err
		}
		m, err := parseModule(p, data)
		if err != nil {
			return nil, err
		}
		set.byName[m.name] = &m
		for _, a := range m.aliases {
			set.byAlias[moduleName(a)] = append(set.byAlias[moduleName(a)], m.name)
		}
	}
	builtin, err := t.read(dir + "/modules.builtin")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's list of built-in modules: %w", err)
	}
	for _, line := range strings.Fields(string(builtin)) {
		set.builtin = append(set.builtin, moduleName(strings.TrimSuffix(path.Base(line), ".ko")))
	}
	return set, nil
}

// choose returns the modules that patterns name and all they depend on, sorted by name. A plain name that is neither a module nor built in is an
// error where strict; soft dependencies that do not exist are nobody's loss.
func (set *moduleSet) choose(patterns []string, strict bool) ([]*module, error) {
	chosen := map[string]*module{}
	for _, pattern := range patterns {
		pattern = moduleName(pattern)
		if !strings.ContainsAny(pattern, "*?[") {
			if set.byName[pattern] == nil && !slices.Contains(set.builtin, pattern) && strict {
				return nil, fmt.Errorf("choose kernel module %q: the kernel has none of that name", pattern)
			}
			set.add(chosen, pattern)
			continue
		}
		for name := range set.byName {
			if ok, _ := path.Match(pattern, name); ok {
				set.add(chosen, name)
			}
		}
	}
	list := slices.Collect(maps.Values(chosen))
	slices.SortFunc(list, func(a, b *module) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

func (set *moduleSet) add(chosen map[string]*module, name string) {
	m := set.byName[name]
	if m == nil {
		for _, real := range set.byAlias[name] {
			set.add(chosen, real)
		}
		return
	}
	if chosen[name] != nil {
		return
	}
	chosen[name] = m
	for _, d := range slices.Concat(m.needs, m.pre, m.post) {
		set.add(chosen, d)
	}
}

// moduleIndex is the guest's table of modules, of our own making because Debian's is made by depmod when the package is installed. Lines are
// "module NAME FILE NEEDS PRE POST" (lists with commas, "-" for none), "alias PATTERN NAME" and "builtin NAME".
func moduleIndex(list []*module, builtin []string, withAliases bool) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "module %s %s %s %s %s\n", m.name, "/"+place(m.file), joined(m.needs), joined(m.pre), joined(m.post))
	}
	if withAliases {
		for _, m := range list {
			for _, a := range m.aliases {
				fmt.Fprintf(&b, "alias %s %s\n", a, m.name)
			}
		}
	}
	for _, name := range builtin {
		fmt.Fprintf(&b, "builtin %s\n", name)
	}
	return b.String()
}

func joined(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ",")
}

// copyModules moves chosen modules from the kernel's tree to another, without debug symbols' weight being touched: a signed module must stay as it
// is.
func copyModules(from, to *tree, list []*module) error {
	for _, m := range list {
		n := from.nodes[m.file]
		if err := to.write(m.file, fs.FileMode(0o644), 0, 0, from.open(n), n.n); err != nil {
			return err
		}
	}
	return nil
}
