// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/types/registry"
)

// Credentials are what a registry is asked with.
type Credentials = registry.AuthConfig

// registries finds credentials in the user's docker configuration. Each registry is looked up once: a credential helper may ask the user.
type registries struct {
	file func() (*configfile.ConfigFile, error)

	mu     sync.Mutex
	found  map[string]func() (Credentials, error)
	warned map[string]bool
}

func newRegistries(o Options) *registries {
	dir := o.ConfigDir
	if dir == "" {
		dir = getenv(o.Environ, "DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(homeFolder(o.Environ), ".docker")
	}
	return &registries{
		file:  sync.OnceValues(func() (*configfile.ConfigFile, error) { return config.Load(dir) }),
		found: map[string]func() (Credentials, error){}, warned: map[string]bool{},
	}
}

// RegistryAuth implements [Backend]. An error is no reason to stop: the credentials are what could be found all the same, and many images
// need none.
func (c *Client) RegistryAuth(host string) (Credentials, error) { return c.registries.auth(host) }

func (r *registries) auth(host string) (Credentials, error) {
	r.mu.Lock()
	look, ok := r.found[host]
	if !ok {
		look = sync.OnceValues(func() (Credentials, error) { return r.look(host) })
		r.found[host] = look
	}
	r.mu.Unlock()
	return look()
}

func (r *registries) look(host string) (Credentials, error) {
	file, err := r.file()
	if err != nil {
		return Credentials{}, fmt.Errorf("read registry credentials: %w", err)
	}
	a, err := file.GetAuthConfig(host)
	found := Credentials{
		Username: a.Username, Password: a.Password, Auth: a.Auth, ServerAddress: a.ServerAddress,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
	if err != nil {
		return found, helperError(host, file, err)
	}
	return found, nil
}

// helperNotFound finds the name of the credential helper that could not be run. The library keeps no more of the cause than its text.
var helperNotFound = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`"(docker-credential-[^"]*)": executable file not found`)
})

// helperError says which credential helper failed, and what to do.
func helperError(host string, file *configfile.ConfigFile, err error) error {
	if m := helperNotFound().FindStringSubmatch(err.Error()); m != nil {
		err := fmt.Errorf("credential helper %q, which %s names, is not installed: %s is asked without credentials", m[1], file.Filename, host)
		return withHint(err, "install %s, or remove credsStore and credHelpers from %s and log in again", m[1], file.Filename)
	}
	text := strings.TrimPrefix(err.Error(), "error getting credentials - err: ")
	return fmt.Errorf("get credentials for %s with a credential helper: %s", host, text)
}

// firstTime reports whether text is asked about for the first time, so that a warning is given once and not for each image.
func (r *registries) firstTime(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.warned[text]
	r.warned[text] = true
	return !seen
}
