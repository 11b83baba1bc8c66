// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"context"
	"slices"
	"sync"

	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/session/auth/authprovider"

	"github.com/seed71221737/dev/engine/build/wire"
)

// credentials serves one build's authentication with what dev finds in the user's docker configuration. What is wrong there (a credential
// helper that is not installed) does not end the build, as most images need no credentials: it is kept to be told.
type credentials struct {
	ask func(registry string) (wire.Credentials, error)

	mu    sync.Mutex
	wrong []string
}

// get implements [authprovider.AuthConfigProvider].
func (c *credentials) get(_ context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
	if host == authprovider.DockerHubRegistryHost {
		host = "docker.io"
	}
	found, err := c.ask(host)
	if err != nil {
		c.mu.Lock()
		if !slices.Contains(c.wrong, err.Error()) {
			c.wrong = append(c.wrong, err.Error())
		}
		c.mu.Unlock()
	}
	return types.AuthConfig{
		Username: found.Username, Password: found.Password, Auth: found.Auth, ServerAddress: found.ServerAddress,
		IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}, nil
}

// warnings are what was wrong.
func (c *credentials) warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.wrong)
}
