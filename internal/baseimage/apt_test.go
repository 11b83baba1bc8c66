// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package baseimage

import (
	"slices"
	"testing"
)

func TestOneLineSources(t *testing.T) {
	got := oneLineSources(`
# deb http://mirror.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # ours
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/security bookworm-security main
deb [signed-by=/etc/apt/keyrings/other.gpg] https://other.example/debian bookworm main
deb https://tools.example/debian bookworm stable
deb http://mirror.example/debian bookworm-backports main
deb http://mirror.example/debian trixie main
deb broken
`)
	want := []string{
		"deb http://mirror.example/debian bookworm main",
		"deb http://mirror.example/security bookworm-security main",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDeb822Sources(t *testing.T) {
	got := deb822Sources(`# made by an installer
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://other.example
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/other.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
`)
	want := []string{
		"deb http://mirror.example/debian bookworm main",
		"deb http://mirror.example/debian bookworm-updates main",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAptOptions(t *testing.T) {
	got := aptOptions(`Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "http://127.0.0.1:3142";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "";
`)
	want := []string{`Acquire::http::Proxy "http://proxy.example:3128"`, `Acquire::Check-Valid-Until "false"`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArguments(t *testing.T) {
	got := arguments(apt{sources: []string{entry("https://mirror.example/debian", suite)}, options: []string{`Acquire::Check-Date "false"`}}, "out.tar")
	for _, want := range []string{"--aptopt=Acquire::Check-Date \"false\"", "--include=ca-certificates"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if tail := got[len(got)-3:]; !slices.Equal(tail, []string{"bookworm", "out.tar", "deb https://mirror.example/debian bookworm main"}) {
		t.Errorf("ends in %q", tail)
	}
}
