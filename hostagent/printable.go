// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"strings"
	"unicode"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// escapes are the sequences by which a program commands a terminal: CSI, strings such as OSC with their end, and two-character ones.
var escapes = lazyregexp.New("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b]*(\x07|\x1b\\\\)?|\x1b[ -/]*[0-~]")

// Printable is what a machine says as one line that is safe to show: without what would command the terminal. A machine may be hostile, and a terminal does what
// it is told: colours, titles, the clipboard, keys that the user did not press.
func Printable(line string) string {
	line = strings.ToValidUTF8(line, "\uFFFD")
	if strings.ContainsRune(line, '\x1b') {
		line = escapes.Get().ReplaceAllString(line, "")
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ' '
		case r != '\t' && unicode.IsControl(r):
			return -1
		}
		return r
	}, line)
}
