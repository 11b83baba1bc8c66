// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestPlain(t *testing.T) {
	got := plain("<html><head>\n<style>b{}</style>\n</head>\n<body>\n<h1>Title</h1>\n<form>\n<input>\n</form>\n\n<li><b>Ada</b>: a &lt; b</li>\n</body></html>\n")
	if want := "  Title\n  Ada: a < b\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
