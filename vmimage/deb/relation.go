// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"fmt"
	"strings"
)

// Relation is one alternative of a dependency: a package name and, when Op is set, the versions that satisfy it.
type Relation struct {
	Name string
	// Op is one of "", "<<", "<=", "=", ">=", ">>".
	Op, Version string
}

func (r Relation) String() string {
	if r.Op == "" {
		return r.Name
	}
	return fmt.Sprintf("%s (%s %s)", r.Name, r.Op, r.Version)
}

// Admits tells whether a version satisfies the relation.
func (r Relation) Admits(version string) bool {
	c := CompareVersions(version, r.Version)
	switch r.Op {
	case "":
		return true
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	}
	return c > 0
}

// ParseRelations reads a Depends field: what must hold together, each a list of alternatives in order of preference. Architecture qualifiers
// (":any") are dropped: all packages of an image are of one architecture.
func ParseRelations(field string) ([][]Relation, error) {
	var all [][]Relation
	for _, group := range strings.Split(field, ",") {
		if strings.TrimSpace(group) == "" {
			continue
		}
		var alternatives []Relation
		for _, text := range strings.Split(group, "|") {
			r, err := parseRelation(text)
			if err != nil {
				return nil, err
			}
			alternatives = append(alternatives, r)
		}
		all = append(all, alternatives)
	}
	return all, nil
}

func parseRelation(text string) (Relation, error) {
	text = strings.TrimSpace(text)
	name, rest, versioned := strings.Cut(text, "(")
	name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
	if !validName(name) {
		return Relation{}, fmt.Errorf("parse relation %q: not a package name", text)
	}
	if !versioned {
		return Relation{Name: name}, nil
	}
	inner, _, closed := strings.Cut(rest, ")")
	inner = strings.TrimSpace(inner)
	op := inner[:len(inner)-len(strings.TrimLeft(inner, "<>="))]
	version := strings.TrimSpace(inner[len(op):])
	switch op {
	case "<<", "<=", "=", ">=", ">>":
	default:
		return Relation{}, fmt.Errorf("parse relation %q: unknown operator %q", text, op)
	}
	if !closed || version == "" || strings.ContainsAny(version, " \t") {
		return Relation{}, fmt.Errorf("parse relation %q: no version", text)
	}
	return Relation{Name: name, Op: op, Version: version}, nil
}

// validName tells whether s can be a package's name.
func validName(s string) bool {
	if len(s) < 2 || len(s) > 200 {
		return false
	}
	for i, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
		case i > 0 && strings.ContainsRune("+-._", c):
		default:
			return false
		}
	}
	return true
}
