// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
)

// NewNetworkSpec converts the project's network key to what the engine needs to create it.
func NewNetworkSpec(p *types.Project, key string) (NetworkSpec, error) {
	n, ok := p.Networks[key]
	if !ok {
		return NetworkSpec{}, fmt.Errorf("no network %q in project %q", key, p.Name)
	}
	hash, err := NetworkHash(n)
	if err != nil {
		return NetworkSpec{}, err
	}
	return NetworkSpec{
		Name:   n.Name,
		Driver: n.Driver,
		Labels: map[string]string{LabelProject: p.Name, LabelNetwork: key, LabelConfigHash: hash},
	}, nil
}
