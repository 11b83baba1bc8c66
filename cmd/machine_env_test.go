// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"strings"
	"testing"

	"github.com/seed71221737/dev/machine/shellenv"
)

func environ(vars ...string) func(string) string {
	a := app{env: vars}
	return a.getenv
}

// lines is variables in short: NAME=value, or -NAME for one that is taken away.
func lines(vars []shellenv.Variable) string {
	var out []string
	for _, v := range vars {
		if v.Unset {
			out = append(out, "-"+v.Name)
		} else {
			out = append(out, v.Name+"="+v.Value)
		}
	}
	return strings.Join(out, " ")
}

func TestMachineVariables(t *testing.T) {
	local := machineAddress{name: "box", host: "unix:///m/box/docker.sock"}
	tcp := machineAddress{name: "box", host: "tcp://127.0.0.1:2376", certs: "/m/box/tls"}
	for _, c := range []struct {
		x       machineAddress
		goos    string
		noProxy bool
		env     []string
		want    string
	}{
		{x: local, want: "DOCKER_HOST=unix:///m/box/docker.sock DOCKER_MACHINE_NAME=box"},
		{x: tcp, want: "DOCKER_TLS_VERIFY=1 DOCKER_HOST=tcp://127.0.0.1:2376 DOCKER_CERT_PATH=/m/box/tls DOCKER_MACHINE_NAME=box"},
		// what another machine's TCP address needed would break the local socket
		{x: local, env: []string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=/x"},
			want: "-DOCKER_TLS_VERIFY DOCKER_HOST=unix:///m/box/docker.sock -DOCKER_CERT_PATH DOCKER_MACHINE_NAME=box"},
		{x: local, goos: "windows", want: "DOCKER_HOST=unix:///m/box/docker.sock DOCKER_MACHINE_NAME=box COMPOSE_CONVERT_WINDOWS_PATHS=true"},
		{x: local, noProxy: true, want: "DOCKER_HOST=unix:///m/box/docker.sock DOCKER_MACHINE_NAME=box NO_PROXY=127.0.0.1"},
		{x: local, noProxy: true, env: []string{"no_proxy=a.b", "NO_PROXY=c"}, want: "DOCKER_HOST=unix:///m/box/docker.sock DOCKER_MACHINE_NAME=box no_proxy=a.b,127.0.0.1"},
		{x: local, noProxy: true, env: []string{"NO_PROXY=127.0.0.1,c"}, want: "DOCKER_HOST=unix:///m/box/docker.sock DOCKER_MACHINE_NAME=box NO_PROXY=127.0.0.1,c"},
	} {
		if got := lines(c.x.variables(c.goos, c.noProxy, environ(c.env...))); got != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c, got, c.want)
		}
	}
}

func TestUnsetVariables(t *testing.T) {
	all := "-DOCKER_TLS_VERIFY -DOCKER_HOST -DOCKER_CERT_PATH -DOCKER_MACHINE_NAME"
	for _, c := range []struct {
		goos    string
		noProxy bool
		env     []string
		want    string
	}{
		{want: all},
		{goos: "windows", want: all + " -COMPOSE_CONVERT_WINDOWS_PATHS"},
		{noProxy: true, env: []string{"NO_PROXY=127.0.0.1"}, want: all + " -NO_PROXY"},
		{noProxy: true, env: []string{"no_proxy=a,127.0.0.1,b"}, want: all + " no_proxy=a,b"},
	} {
		if got := lines(unsetVariables(c.goos, c.noProxy, environ(c.env...))); got != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c, got, c.want)
		}
	}
}

func TestMachineFlags(t *testing.T) {
	if got := strings.Join(machineAddress{host: "unix:///s"}.flags(), " "); got != "-H=unix:///s" {
		t.Errorf("local: %s", got)
	}
	got := strings.Join(machineAddress{host: "tcp://127.0.0.1:1", certs: "/m/tls"}.flags(), " ")
	if want := `--tlsverify --tlscacert=/m/tls/ca.pem --tlscert=/m/tls/cert.pem --tlskey=/m/tls/key.pem -H=tcp://127.0.0.1:1`; got != want {
		t.Errorf("tcp: %s, want %s", got, want)
	}
}
