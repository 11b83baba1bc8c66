// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import "strings"

// CompareVersions orders two Debian versions as dpkg does: negative when a is older than b, positive when newer, 0 when equal.
func CompareVersions(a, b string) int {
	ea, ua, ra := splitVersion(a)
	eb, ub, rb := splitVersion(b)
	if c := comparePart(ea, eb); c != 0 {
		return c
	}
	if c := comparePart(ua, ub); c != 0 {
		return c
	}
	return comparePart(ra, rb)
}

// splitVersion cuts [epoch:]upstream[-revision].
func splitVersion(v string) (epoch, upstream, revision string) {
	epoch = "0"
	if e, rest, ok := strings.Cut(v, ":"); ok {
		epoch, v = e, rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// comparePart compares alternating runs of non-digits (by character order) and digits (by value).
func comparePart(a, b string) int {
	for a != "" || b != "" {
		na, ra := span(a, false)
		nb, rb := span(b, false)
		if c := compareText(na, nb); c != 0 {
			return c
		}
		da, resta := span(ra, true)
		db, restb := span(rb, true)
		if c := compareDigits(da, db); c != 0 {
			return c
		}
		a, b = resta, restb
	}
	return 0
}

// span splits s after its leading run of digits, or of non-digits.
func span(s string, digits bool) (run, rest string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9') == digits {
		i++
	}
	return s[:i], s[i:]
}

func compareText(a, b string) int {
	for i := 0; i < len(a) || i < len(b); i++ {
		if c := charOrder(a, i) - charOrder(b, i); c != 0 {
			return c
		}
	}
	return 0
}

// charOrder ranks one character: ~ before the end, the end before letters, letters before the rest.
func charOrder(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case s[i] >= 'a' && s[i] <= 'z', s[i] >= 'A' && s[i] <= 'Z':
		return int(s[i])
	}
	return int(s[i]) + 256
}

func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
