// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"fmt"
	"slices"
	"strings"
)

// Universe is what can be installed: all packages of all suites for one architecture.
type Universe struct {
	byName   map[string][]*Package // newest first
	provided map[string][]*Package
}

// NewUniverse collects packages; those of another architecture than arch (or "all") are left out.
func NewUniverse(arch string, lists ...[]Package) *Universe {
	u := &Universe{byName: map[string][]*Package{}, provided: map[string][]*Package{}}
	for _, list := range lists {
		for i := range list {
			p := &list[i]
			if p.Arch != arch && p.Arch != "all" {
				continue
			}
			u.byName[p.Name] = append(u.byName[p.Name], p)
			for _, v := range p.Provides {
				u.provided[v.Name] = append(u.provided[v.Name], p)
			}
		}
	}
	for _, m := range []map[string][]*Package{u.byName, u.provided} {
		for _, list := range m {
			slices.SortStableFunc(list, func(a, b *Package) int {
				if c := CompareVersions(b.Version, a.Version); c != 0 {
					return c
				}
				return strings.Compare(a.Name, b.Name)
			})
		}
	}
	return u
}

// Find returns the newest package of that name, or nil.
func (u *Universe) Find(name string) *Package {
	if list := u.byName[name]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// UnsatisfiedError says that a package, or something a package needs, cannot be had.
type UnsatisfiedError struct {
	// Relation is what was looked for, Needed the package that needs it (empty: the image spec).
	Relation, Needed string
}

func (e *UnsatisfiedError) Error() string {
	if e.Needed == "" {
		return fmt.Sprintf("resolve package %q: no suite has it", e.Relation)
	}
	return fmt.Sprintf("resolve dependency %q of package %q: no suite has it", e.Relation, e.Needed)
}

// Hint names the next step.
func (e *UnsatisfiedError) Hint() string {
	return "check the package names and suites in the image spec; a dependency the image can do without goes under `without`"
}

// Resolve returns the named packages and all they depend on, sorted by name. Names in without count as satisfied by the image itself. The choice is
// greedy: the newest version of the first alternative that exists, except that an alternative already chosen wins. Versions are not
// backtracked: within one release a package has few versions and the newest works with the newest.
func (u *Universe) Resolve(names, without []string) ([]Package, error) {
	r := resolution{u: u, without: map[string]bool{}, chosen: map[string]*Package{}}
	for _, n := range without {
		r.without[n] = true
	}
	for _, n := range names {
		if err := r.require([]Relation{{Name: n}}, ""); err != nil {
			return nil, err
		}
	}
	for len(r.queue) > 0 {
		p := r.queue[0]
		r.queue = r.queue[1:]
		for _, alternatives := range p.Depends {
			if err := r.require(alternatives, p.Name); err != nil {
				return nil, err
			}
		}
	}
	list := make([]Package, 0, len(r.chosen))
	for _, p := range r.chosen {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

type resolution struct {
	u       *Universe
	without map[string]bool
	chosen  map[string]*Package
	queue   []*Package
}

// require chooses a package for one dependency, unless one is there already.
func (r *resolution) require(alternatives []Relation, needed string) error {
	for _, a := range alternatives {
		if r.without[a.Name] || r.satisfied(a) {
			return nil
		}
	}
	for _, a := range alternatives {
		if p := r.candidate(a); p != nil {
			if old := r.chosen[p.Name]; old != nil {
				continue // another version is in already, and it did not satisfy
			}
			r.chosen[p.Name] = p
			r.queue = append(r.queue, p)
			return nil
		}
	}
	var text []string
	for _, a := range alternatives {
		text = append(text, a.String())
	}
	return &UnsatisfiedError{Relation: strings.Join(text, " | "), Needed: needed}
}

func (r *resolution) satisfied(a Relation) bool {
	if p := r.chosen[a.Name]; p != nil && a.Admits(p.Version) {
		return true
	}
	return slices.ContainsFunc(r.u.provided[a.Name], func(p *Package) bool { return r.chosen[p.Name] == p && p.provides(a) })
}

func (r *resolution) candidate(a Relation) *Package {
	for _, p := range r.u.byName[a.Name] {
		if a.Admits(p.Version) {
			return p
		}
	}
	for _, p := range r.u.provided[a.Name] {
		if p.provides(a) {
			return p
		}
	}
	return nil
}

// provides tells whether the package provides what a asks for; an unversioned provision satisfies no versioned relation.
func (p *Package) provides(a Relation) bool {
	return slices.ContainsFunc(p.Provides, func(v Relation) bool {
		return v.Name == a.Name && (a.Op == "" || v.Op == "=" && a.Admits(v.Version))
	})
}
