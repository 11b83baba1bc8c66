// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds one line of a control file in bytes; the longest in Debian's index (a Provides field) has about 100 kB.
const maxLine = 1 << 20

// Stanza is one paragraph of a control file: field names in lower case, continuation lines joined by newlines.
type Stanza map[string]string

// ReadStanzas calls f for each paragraph of a control file.
func ReadStanzas(r io.Reader, f func(Stanza) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	cur, last := Stanza{}, ""
	flush := func() error {
		if len(cur) == 0 {
			return nil
		}
		s := cur
		cur, last = Stanza{}, ""
		return f(s)
	}
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), " \t\r")
		switch {
		case line == "":
			if err := flush(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return fmt.Errorf("line %d continues no field", n)
			}
			cur[last] += "\n" + strings.TrimSpace(line)
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || strings.ContainsAny(name, " \t") || name == "" {
				return fmt.Errorf("line %d is not a field: %.40q", n, line)
			}
			last = strings.ToLower(name)
			if _, twice := cur[last]; twice {
				return fmt.Errorf("line %d has field %q a second time", n, name)
			}
			cur[last] = strings.TrimSpace(value)
		}
	}
	if err := sc.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		return err
	}
	return flush()
}
