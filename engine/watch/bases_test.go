// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"strings"
	"testing"
)

func TestBaseImages(t *testing.T) {
	const text = `# syntax=docker/dockerfile:1
ARG GO=1.26
ARG SUITE
FROM --platform=$BUILDPLATFORM golang:${GO} AS build
COPY --from=assets /a /a
COPY --from=registry.example/tools:2 /bin/tool /bin/
RUN --mount=type=bind,from=busybox:1,target=/b true
FROM build AS test
FROM debian:${SUITE}
FROM scratch
COPY --from=Build /x /
COPY --from=0 /y /
FROM golang:1.26
`
	for _, c := range []struct {
		args map[string]string
		want string
	}{
		{nil, "[golang:1.26 registry.example/tools:2 busybox:1]"},
		{map[string]string{"GO": "1.25", "SUITE": "trixie"}, "[golang:1.25 registry.example/tools:2 busybox:1 debian:trixie golang:1.26]"},
	} {
		got, err := BaseImages(strings.NewReader(text), c.args, []string{"assets"})
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%v: got %v, %v, want %s", c.args, got, err, c.want)
		}
	}
}
