// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"encoding/json"
	"testing"
)

func TestStallOf(t *testing.T) {
	for data, want := range map[string]string{
		`{"device":"data","operation":"write","action":"stop","nospace":true,"reason":"No space left on device"}`: "its disk is full",
		`{"device":"data","operation":"write","action":"stop","nospace":false,"reason":"Input/output error"}`:     "write: Input/output error",
		`{"device":"data","operation":"write","action":"report","nospace":false,"reason":"Input/output error"}`:   "",
		`{"device":"data","operation":"read","action":"ignore","nospace":false,"reason":"Input/output error"}`:    "",
		`{}`:  "",
		`nil`: "",
	} {
		got := ""
		if err := stallOf(json.RawMessage(data)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}
