// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"errors"
	"strings"
	"testing"

	"github.com/moby/buildkit/session/auth/authprovider"

	"github.com/seed71221737/dev/engine/build/wire"
)

// A credential helper is missing; the configuration has something all the same.
func TestCredentialsWithAMissingHelper(t *testing.T) {
	var asked []string
	c := &credentials{ask: func(host string) (wire.Credentials, error) {
		asked = append(asked, host)
		return wire.Credentials{Username: "me"}, errors.New("credential helper is not installed")
	}}
	for _, host := range []string{authprovider.DockerHubRegistryHost, "r.test:5000"} {
		got, err := c.get(t.Context(), host, nil, nil)
		if err != nil || got.Username != "me" {
			t.Errorf("%s: got %+v, %v", host, got, err)
		}
	}
	if strings.Join(asked, " ") != "docker.io r.test:5000" {
		t.Errorf("asked for %q", asked)
	}
	if w := c.warnings(); len(w) != 1 {
		t.Errorf("warnings %q", w)
	}
}

func TestReplaceHost(t *testing.T) {
	if got := replaceHost("a=host-gateway,b=1.2.3.4,host-gateway=::1", "host-gateway", "172.17.0.1"); got != "a=172.17.0.1,b=1.2.3.4,host-gateway=::1" {
		t.Error(got)
	}
}
