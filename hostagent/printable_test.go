// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"strings"
	"testing"
	"unicode"
)

func TestPrintable(t *testing.T) {
	for line, want := range map[string]string{
		"plain — ünï\tcode":               "plain — ünï\tcode",
		"\x1b[1;31mred\x1b[0m\r":          "red",
		"\x1b]52;c;ZXZpbA==\x07clipboard": "clipboard",
		"\x1b]0;title\x1b\\shown":         "shown",
		"\x1bPq#0\x1b\\sixel":             "sixel",
		"\x1b(Bset \x1b7saved":            "set saved",
		"eight bits \u009b31m, bell \a":   "eight bits 31m, bell ",
		"cut off \x1b[":                   "cut off ",
		"cut off \x1b":                    "cut off ",
		"no text \xff\xfe":                "no text \uFFFD",
		"one\nline":                       "one line",
	} {
		if got := Printable(line); got != want {
			t.Errorf("Printable(%q) = %q, want %q", line, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b]0;\x1b[x\x07")
	f.Fuzz(func(t *testing.T, line string) {
		if got := Printable(line); strings.ContainsFunc(got, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
			t.Errorf("Printable(%q) = %q", line, got)
		}
	})
}
