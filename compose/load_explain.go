// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The forms of compose-go's errors that say where something is wrong. They are matched by text since the errors have no types; what does
// not match any more loses its line number and nothing else.
var (
	parseFailure  = regexp.MustCompile(`(?s)^failed to parse (.+?): (.*)$`)
	schemaFailure = regexp.MustCompile(`(?s)^validating (.+?): (\S*) ?(.*)$`)
	lineInText    = regexp.MustCompile(`\bline (\d+)(?:, column \d+)?(?::\s*|\b)`)
	pathInText    = regexp.MustCompile(`\b((?:services|networks|volumes|configs|secrets|models|include|jobs)(?:\.[^\s:]+)+)`)
	undefined     = regexp.MustCompile(`service "([^"]+)" (?:refers to|depends on) undefined (network|volume|config|secret|service|model) "?([^\s":]+)`)
	serviceInText = regexp.MustCompile(`service "([^"]+)"`)
)

// explain gives an error of the loader the file and line it is about, as far as they can be known.
func (s *sources) explain(err error) error {
	var known *FieldError
	if errors.As(err, &known) {
		return err
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // only the outermost may be a list
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, s.explain(e))
		}
		return errors.Join(all...)
	}
	text := err.Error()
	if m := parseFailure.FindStringSubmatch(text); m != nil {
		return explainSyntax(m[1], m[2], err)
	}
	if m := schemaFailure.FindStringSubmatch(text); m != nil {
		file, line := s.findDotted(m[1], m[2])
		return &FieldError{File: file, Line: line, Err: &reworded{strings.TrimSpace(m[2] + " " + m[3]), err}}
	}
	file, line := s.placeIn(text)
	if line == 0 {
		return fmt.Errorf("load compose files: %w", err)
	}
	return &FieldError{File: file, Line: line, Err: &reworded{strings.TrimSuffix(text, ": invalid compose project"), err}}
}

// explainSyntax moves the line number that the YAML parser mentions to the front.
func explainSyntax(file, text string, err error) error {
	e := &FieldError{File: file}
	if m := lineInText.FindStringSubmatchIndex(text); m != nil {
		e.Line, _ = strconv.Atoi(text[m[2]:m[3]])
		text = text[:m[0]] + text[m[1]:]
	}
	text = strings.Join(strings.Fields(text), " ")
	e.Err = &reworded{text, err}
	return e
}

// placeIn finds the place that the text of an error speaks of.
func (s *sources) placeIn(text string) (file string, line int) {
	if m := undefined.FindStringSubmatch(text); m != nil {
		field := m[2] + "s"
		if m[2] == "service" {
			field = "depends_on"
		}
		return s.find("services", m[1], field, m[3])
	}
	if m := pathInText.FindStringSubmatch(text); m != nil {
		return s.findDotted("", strings.TrimRight(m[1], ".,"))
	}
	if m := serviceInText.FindStringSubmatch(text); m != nil {
		return s.find("services", m[1])
	}
	return "", 0
}

// reworded is an error with another text.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }
