// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"strings"
	"testing"
)

func TestGuestPath(t *testing.T) {
	for _, c := range []struct{ goos, host, want, failure string }{
		{"linux", "/home/anna", "/home/anna", ""},
		{"linux", "/home/anna/../bob/", "/home/bob", ""},
		{"darwin", "/Users/anna mit ü", "/Users/anna mit ü", ""},
		{"linux", "home", "", "not absolute"},
		{"linux", `/odd\name`, `/odd\name`, ""},
		{"windows", `C:\Users\anna`, "/c/Users/anna", ""},
		{"windows", `c:/Users/anna`, "/c/Users/anna", ""},
		{"windows", `D:\`, "/d", ""},
		{"windows", `\\?\C:\Users\anna`, "/c/Users/anna", ""},
		{"windows", `C:\Users\..\..\Windows`, "/c/Windows", ""},
		{"windows", `C:Users`, "", "not absolute"},
		{"windows", `\Users`, "", "not absolute"},
		{"windows", `\\server\share`, "", "network path"},
		{"windows", `\\?\UNC\server\share`, "", "network path"},
		{"windows", ``, "", "not absolute"},
	} {
		got, err := GuestPath(c.goos, c.host)
		if c.failure == "" && (err != nil || got != c.want) {
			t.Errorf("GuestPath(%q, %q) = %q, %v; want %q", c.goos, c.host, got, err, c.want)
		}
		if c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)) {
			t.Errorf("GuestPath(%q, %q) = %q, %v; want an error with %q", c.goos, c.host, got, err, c.failure)
		}
	}
}
