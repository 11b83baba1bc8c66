// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// fakeProbe is a system as a test wants it.
type fakeProbe struct {
	current    string
	currentErr error
	contexts   map[string]Engine
	answers    map[string]error // a missing host has no socket
	asked      []string
}

func (p *fakeProbe) CurrentContext() (string, error) { return p.current, p.currentErr }

func (p *fakeProbe) Context(name string) (Engine, error) {
	if e, ok := p.contexts[name]; ok {
		return e, nil
	}
	return Engine{}, &ContextError{Name: name, Err: fs.ErrNotExist}
}

func (p *fakeProbe) Certificates(dir string, verify bool) (*tls.Config, error) {
	if dir == "" {
		return nil, fs.ErrNotExist
	}
	return &tls.Config{ServerName: dir, InsecureSkipVerify: !verify}, nil
}

func (p *fakeProbe) Answers(_ context.Context, host string) error {
	p.asked = append(p.asked, host)
	if err, ok := p.answers[host]; ok {
		return err
	}
	return fs.ErrNotExist
}

const ownHost = "unix:///run/dev/docker.sock"

func TestResolve(t *testing.T) {
	denied := fmt.Errorf("permission denied: %w", fs.ErrPermission)
	remote := Engine{Name: "remote", Host: "tcp://10.0.0.1:2376", TLS: &tls.Config{}}
	machine := func(context.Context) (*Engine, error) { return &Engine{Name: "m1", Host: "unix:///m1.sock"}, nil }
	for _, tt := range []struct {
		name    string
		in      Inputs
		env     map[string]string
		probe   fakeProbe
		want    string // source, name, host, tls, embedded, start
		wantErr string
	}{
		{"flag wins over everything", Inputs{Flag: "tcp://h:1", Machine: machine}, map[string]string{"DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": "remote"},
			fakeProbe{}, "--host  tcp://h:1", ""},
		{"flag that is no address", Inputs{Flag: "ftp://h"}, nil, fakeProbe{}, "", `--host: "ftp://h" is not the address of an engine`},
		{"DOCKER_HOST wins over machine and context", Inputs{Machine: machine}, map[string]string{"DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": "remote"},
			fakeProbe{}, "DOCKER_HOST  unix:///x", ""},
		{"DOCKER_HOST with TLS", Inputs{}, map[string]string{"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"},
			fakeProbe{}, "DOCKER_HOST  tcp://h:2376 tls", ""},
		{"TLS material that is missing", Inputs{}, map[string]string{"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1"},
			fakeProbe{}, "", "read certificates for tcp://h:2376"},
		{"TLS variables do not concern a socket", Inputs{}, map[string]string{"DOCKER_HOST": "unix:///x", "DOCKER_TLS_VERIFY": "1"},
			fakeProbe{}, "DOCKER_HOST  unix:///x", ""},
		{"machine wins over context", Inputs{Machine: machine}, nil, fakeProbe{current: "remote", contexts: map[string]Engine{"remote": remote}}, "machine m1 unix:///m1.sock", ""},
		{"no active machine", Inputs{Machine: func(context.Context) (*Engine, error) { return nil, nil }}, nil,
			fakeProbe{answers: map[string]error{SystemHost: nil}}, "system  " + SystemHost, ""},
		{"machine that cannot be told", Inputs{Machine: func(context.Context) (*Engine, error) { return nil, errors.New("boom") }}, nil,
			fakeProbe{answers: map[string]error{SystemHost: nil}}, "", "find the active machine: boom"},
		{"current context", Inputs{}, nil, fakeProbe{current: "remote", contexts: map[string]Engine{"remote": remote}}, "docker context remote tcp://10.0.0.1:2376 tls", ""},
		{"DOCKER_CONTEXT wins over the current one", Inputs{}, map[string]string{"DOCKER_CONTEXT": "remote"},
			fakeProbe{current: "gone", contexts: map[string]Engine{"remote": remote}}, "docker context remote tcp://10.0.0.1:2376 tls", ""},
		{"context that is not there is an error, not the next engine", Inputs{}, nil,
			fakeProbe{current: "gone", answers: map[string]error{SystemHost: nil}}, "", `read docker context "gone"`},
		{"settings of the docker CLI that cannot be read", Inputs{}, nil, fakeProbe{currentErr: errors.New("bad json")}, "", "bad json"},
		{"default context falls through", Inputs{}, map[string]string{"DOCKER_CONTEXT": "default"}, fakeProbe{answers: map[string]error{SystemHost: nil}}, "system  " + SystemHost, ""},
		{"system wins over our own running engine", Inputs{}, nil, fakeProbe{answers: map[string]error{SystemHost: nil, ownHost: nil}}, "system  " + SystemHost, ""},
		{"our own engine, running", Inputs{}, nil, fakeProbe{answers: map[string]error{ownHost: nil}}, "dev's engine  " + ownHost + " embedded", ""},
		{"our own engine, to be started", Inputs{}, nil, fakeProbe{}, "dev's engine  " + ownHost + " embedded start", ""},
		{"our own engine, running for others", Inputs{}, nil, fakeProbe{answers: map[string]error{ownHost: denied}}, "dev's engine  " + ownHost + " embedded", ""},
		{"our own engine through its context is started too", Inputs{}, nil,
			fakeProbe{current: "dev", contexts: map[string]Engine{"dev": {Name: "dev", Host: ownHost}}}, "docker context dev " + ownHost + " embedded start", ""},
		{"a system engine that refuses this user", Inputs{}, nil, fakeProbe{answers: map[string]error{SystemHost: denied}}, "system  " + SystemHost, ""},
		{"a system engine that refuses this user, beside ours", Inputs{}, nil, fakeProbe{answers: map[string]error{SystemHost: denied, ownHost: nil}}, "dev's engine  " + ownHost + " embedded", ""},
		{"none", Inputs{Embedded: Embedded{Why: "it runs natively only on Linux"}}, nil, fakeProbe{}, "", "it runs natively only on Linux"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := tt.in
			in.Getenv = func(name string) string { return tt.env[name] }
			if in.Embedded == (Embedded{}) {
				in.Embedded.Host = ownHost
			}
			for _, in.All = range []bool{false, true} { // looking at all never changes the choice
				got, err := Resolve(t.Context(), in, &tt.probe)
				if tt.wantErr != "" {
					if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
						t.Fatalf("all %v: error %v, want %q", in.All, err, tt.wantErr)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if text := describe(got); text != tt.want {
					t.Errorf("all %v: chose %q, want %q", in.All, text, tt.want)
				}
				checkCandidates(t, got)
			}
		})
	}
}

func describe(c Choice) string {
	text := fmt.Sprintf("%s %s %s", c.Source, c.Name, c.Host)
	for word, on := range map[string]bool{" tls": c.TLS != nil} {
		if on {
			text += word
		}
	}
	if c.Embedded {
		text += " embedded"
	}
	if c.Start {
		text += " start"
	}
	return text
}

// checkCandidates: exactly one is chosen, and all have a reason.
func checkCandidates(t *testing.T, c Choice) {
	t.Helper()
	chosen := 0
	for _, candidate := range c.Candidates {
		if candidate.Chosen {
			chosen++
		}
		if candidate.Why == "" {
			t.Errorf("candidate %s has no reason", candidate.Source)
		}
	}
	if chosen != 1 {
		t.Errorf("%d candidates are chosen: %+v", chosen, c.Candidates)
	}
}

// TestResolveLooksNoFurther: what comes after the winner is not looked at, as
// each look costs every command.
func TestResolveLooksNoFurther(t *testing.T) {
	p := &fakeProbe{}
	in := Inputs{Flag: "tcp://h:1", Getenv: func(string) string { return "" }, Embedded: Embedded{Host: ownHost}}
	if _, err := Resolve(t.Context(), in, p); err != nil {
		t.Fatal(err)
	}
	if len(p.asked) != 0 {
		t.Errorf("asked %q although --host is set", p.asked)
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///run/x.sock":       "unix:///run/x.sock",
		"unix://":                  "unix:///var/run/docker.sock",
		"unix://relative":          "",
		"tcp://h:2375":             "tcp://h:2375",
		"tcp://h":                  "tcp://h:2375",
		"tcp://:2376":              "tcp://localhost:2376",
		"h:2375":                   "tcp://h:2375",
		"[::1]:2375":               "tcp://[::1]:2375",
		"tcp://h:2375/base/":       "tcp://h:2375/base",
		"http://h:2375":            "",
		"ssh://me@h":               "ssh://me@h",
		"ssh://me@h:22/run/x.sock": "ssh://me@h:22/run/x.sock",
		"npipe:////./pipe/docker":  "npipe:////./pipe/docker",
		" tcp://h:1\n":             "tcp://h:1",
		"ssh://":                   "",
		"tcp://":                   "",
		"":                         "",
		"ftp://h":                  "",
		"tcp://u:secret@h:1":       "",
		"tcp://h:port":             "",
		"unix:/run/x.sock":         "",
		"fd://":                    "",
		"npipe://":                 "",
		"tcp://h:1?x=y":            "",
		"c:\\pipe":                 "",
		"/run/x.sock":              "",
	} {
		got, err := ParseHost(in)
		if (err != nil) != (want == "") || got != want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}
