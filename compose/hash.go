// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/compose-spec/compose-go/v2/types"
)

// ServiceHash is the configuration hash of a service, equal to docker compose's.
func ServiceHash(p *types.Project, s types.ServiceConfig) (string, error) {
	s.Build, s.PullPolicy, s.Scale, s.DependsOn, s.Profiles = nil, "", nil, nil, nil
	return hashJSON(s)
}

// NetworkHash is the configuration hash of a network, equal to docker compose's.
func NetworkHash(n types.NetworkConfig) (string, error) { return hashJSON(n) }

// VolumeHash is the configuration hash of a volume, equal to docker compose's.
func VolumeHash(v types.VolumeConfig) (string, error) {
	if v.Driver == "" {
		v.Driver = "local"
	}
	return hashJSON(v)
}

func hashJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
