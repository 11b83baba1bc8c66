// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"context"
	"fmt"
	"os"

	"github.com/moby/buildkit/session/secrets"

	"github.com/seed71221737/dev/engine/build/wire"
)

// maxSecret is BuildKit's own bound on a secret, in bytes (moby/buildkit session/secrets/secretsprovider).
const maxSecret = 500 << 10

// secretStore serves the build's secrets by the ID that it asks for: from a file, read when asked, or from content resolved at loading.
type secretStore map[string]wire.Secret

// GetSecret implements secrets.SecretStore.
func (s secretStore) GetSecret(_ context.Context, id string) ([]byte, error) {
	def, ok := s[id]
	if !ok {
		return nil, fmt.Errorf("secret %q: %w", id, secrets.ErrNotFound)
	}
	if def.File == "" {
		return def.Content, nil
	}
	info, err := os.Stat(def.File)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", id, err)
	}
	if info.Size() > maxSecret {
		return nil, fmt.Errorf("secret %q: %q has %d bytes, BuildKit takes at most %d", id, def.File, info.Size(), maxSecret)
	}
	return os.ReadFile(def.File)
}
