// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

func TestStaleProblem(t *testing.T) {
	for name, c := range map[string]struct {
		stale []string
		err   error
		text  string // "": no problem
		hint  string
		again bool
	}{
		"all have it":              {},
		"one uses the old one":     {stale: []string{"web"}, text: "still use what was lost: web", hint: "docker restart web", again: true},
		"nobody answers":           {err: errors.New("the link broke"), again: true},
		"an old image":             {err: fmt.Errorf("replace: %w", &proto.Error{Code: proto.CodeUnknown, Text: "unknown"}), text: "too old to give it back", hint: "dev machine restart box"},
		"a failure in the machine": {err: &proto.Error{Code: proto.CodeFailed, Text: "busy"}, again: true},
	} {
		p, again := staleProblem("/src", "box", c.stale, c.err)
		if again != c.again || (p != nil) != (c.text != "") || p != nil && (!strings.Contains(p.Text, c.text) || !strings.Contains(p.Hint, c.hint)) {
			t.Errorf("%s: %+v, %v", name, p, again)
		}
	}
}
