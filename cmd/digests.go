// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/opencontainers/go-digest"

	imageref "github.com/distribution/reference"
)

// withDigests pins the images of services to the digests that their registries have for them now. Services that are built and have no image of their
// own stay as they are.
func (a *app) withDigests(ctx context.Context, p *types.Project) (*types.Project, error) {
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	var mu sync.Mutex
	warn := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		a.warn(text)
	}
	return p.WithImagesResolved(func(named imageref.Named) (digest.Digest, error) {
		d, err := e.Digest(ctx, named.String(), warn)
		if err != nil {
			return "", fmt.Errorf("find the digest of image %s: %w", imageref.FamiliarString(named), err)
		}
		return digest.Parse(d)
	})
}
