// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package lazyregexp has regular expressions that are compiled when they are first used: every command would pay at its start for all those in
// variables of packages, which is more than most commands cost otherwise.
package lazyregexp

import (
	"regexp"
	"sync"
)

// Regexp is a regular expression. It is safe for concurrent use.
type Regexp struct{ compiled func() *regexp.Regexp }

// New makes a regular expression of a pattern, which must be right: it panics at its first use otherwise.
func New(pattern string) Regexp {
	return Regexp{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })}
}

// Get returns the expression itself.
func (r Regexp) Get() *regexp.Regexp { return r.compiled() }

// MatchString is [regexp.Regexp.MatchString].
func (r Regexp) MatchString(s string) bool { return r.compiled().MatchString(s) }

// FindStringSubmatch is [regexp.Regexp.FindStringSubmatch].
func (r Regexp) FindStringSubmatch(s string) []string { return r.compiled().FindStringSubmatch(s) }
