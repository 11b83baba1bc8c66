// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

func TestInfer(t *testing.T) {
	for _, test := range []struct {
		name, dockerfile, target string
		want                     string // rules: action path[ >target][ include], in their order
		note                     string
	}{
		{
			"a Node application", `FROM node:22
WORKDIR /app
COPY package*.json ./
RUN npm ci
COPY . .
CMD ["node", "server.js"]
`, "", "rebuild . include package*.json; sync . >/app; rebuild Dockerfile", "",
		},
		{
			"a compiled program: all that goes into it needs a build", `FROM golang:1 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN go build -o /bin/app
FROM scratch
COPY --from=build /bin/app /app
COPY static /static
`, "", "sync static >/static; rebuild go.mod; rebuild go.sum; rebuild .; rebuild Dockerfile", "",
		},
		{
			"arguments, variables, folders below folders", `ARG BASE=debian
FROM $BASE AS base
ENV HOME=/srv/home
WORKDIR $HOME
WORKDIR web
FROM base
ARG SRC=src
COPY --chown=1:1 ${SRC}/ ./files/
COPY ["go.mod", "/etc/app/"]
COPY static /opt/
`, "", "sync src >/srv/home/web/files; sync go.mod >/etc/app/go.mod; sync static >/opt; rebuild Dockerfile", "",
		},
		{
			"a stage of several", "FROM a AS one\nCOPY src /one\nFROM b AS two\nCOPY static /two\n", "one", "sync src >/one; rebuild Dockerfile", "",
		},
		{
			"a base stage whose files a later RUN uses", "FROM a AS one\nCOPY src /one\nFROM one\nRUN make\nCOPY static /two\n", "", "sync static >/two; rebuild src; rebuild Dockerfile", "",
		},
		{
			"what is not in the context", "FROM a\nADD https://example.org/x /x\nCOPY <<EOF /y\nhi\nEOF\nCOPY --from=nginx /etc/nginx /n\n", "", "rebuild Dockerfile", "",
		},
		{"an unknown folder", "FROM nginx\nCOPY src html\n", "", "rebuild Dockerfile", "COPY src html: its folder in the container is the base image's"},
		{"a source that is not there", "FROM nginx\nCOPY none /x\n", "", "rebuild Dockerfile", "is not there"},
		{"a mount from a stage", "FROM a AS tool\nCOPY src /t\nFROM b\nRUN --mount=type=bind,from=tool,target=/t make\n", "", "rebuild src; rebuild Dockerfile", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"src/x", "static/x", "go.mod", "go.sum"} {
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(test.dockerfile), 0o600); err != nil {
				t.Fatal(err)
			}
			s := types.ServiceConfig{Name: "web", WorkloadSpec: types.WorkloadSpec{Build: &types.BuildConfig{Context: dir, Target: test.target}}}
			rules, notes, err := Infer(&types.Project{}, s)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rules {
				rel, _ := filepath.Rel(dir, r.Path)
				text := fmt.Sprintf("%s %s", r.Action, filepath.ToSlash(rel))
				if r.Target != "" {
					text += " >" + r.Target
				}
				if len(r.Included) > 0 {
					text += " include " + strings.Join(r.Included, ",")
				}
				got = append(got, text)
			}
			if all := strings.Join(got, "; "); all != test.want {
				t.Errorf("got  %s\nwant %s", all, test.want)
			}
			if all := strings.Join(notes, "\n"); (all == "") != (test.note == "") || !strings.Contains(all, test.note) {
				t.Errorf("notes %q, want %q", all, test.note)
			}
		})
	}
}

func TestInferNeedsADockerfile(t *testing.T) {
	p := &types.Project{Environment: types.Mapping{"DIR": "/from-env"}}
	if _, notes, err := Infer(p, types.ServiceConfig{Name: "db"}); err != nil || len(notes) != 1 || !strings.Contains(notes[0], `"db" is not built`) {
		t.Error(notes, err)
	}
	build := &types.BuildConfig{Context: t.TempDir(), Args: types.MappingWithEquals{"DIR": nil}}
	if _, _, err := Infer(p, types.ServiceConfig{Name: "web", WorkloadSpec: types.WorkloadSpec{Build: build}}); err == nil {
		t.Error("no error without a Dockerfile")
	}
	build.DockerfileInline = "FROM a\nARG DIR=/x\nCOPY . $DIR\n"
	rules, _, err := Infer(p, types.ServiceConfig{Name: "web", WorkloadSpec: types.WorkloadSpec{Build: build}})
	if err != nil || len(rules) != 1 || rules[0].Target != "/from-env" {
		t.Error(rules, err)
	}
	build.Target = "none"
	if _, _, err := Infer(p, types.ServiceConfig{Name: "web", WorkloadSpec: types.WorkloadSpec{Build: build}}); err == nil || !strings.Contains(err.Error(), `no stage "none"`) {
		t.Error(err)
	}
}
