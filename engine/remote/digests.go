// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// Media types of an image for several platforms.
const dockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"

// Digests asks an image's registry what the name stands for now: the digest to pull it by and, where it is made for several platforms, each one's own
// (os/arch[/variant]).
func (f *Fetcher) Digests(ctx context.Context, image string) (digest string, platform map[string]string, err error) {
	repo, ref, err := f.repository(image)
	if err != nil {
		return "", nil, err
	}
	d, err := repo.Resolve(ctx, ref)
	if err != nil {
		return "", nil, fmt.Errorf("image %q: %w", image, registryError(repo, err))
	}
	if d.MediaType != ocispec.MediaTypeImageIndex && d.MediaType != dockerIndex {
		return d.Digest.String(), nil, nil
	}
	if d.Size > maxManifest {
		return "", nil, fmt.Errorf("image %q: its index has %d bytes, %d are the most", image, d.Size, maxManifest)
	}
	data, err := content.FetchAll(ctx, repo, d)
	if err != nil {
		return "", nil, fmt.Errorf("image %q: %w", image, registryError(repo, err))
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return "", nil, fmt.Errorf("image %q: read its index: %w", image, err)
	}
	platform = map[string]string{}
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" { // attestations have an unknown one
			platform[platforms.Format(platforms.Normalize(*m.Platform))] = m.Digest.String()
		}
	}
	return d.Digest.String(), platform, nil
}
