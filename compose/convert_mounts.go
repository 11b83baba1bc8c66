// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/volume"
)

// NewVolumeSpec converts the project's volume key to what the engine needs to create it.
func NewVolumeSpec(p *types.Project, key string) (VolumeSpec, error) {
	v, ok := p.Volumes[key]
	if !ok {
		return VolumeSpec{}, fmt.Errorf("no volume %q in project %q", key, p.Name)
	}
	hash, err := VolumeHash(v)
	if err != nil {
		return VolumeSpec{}, err
	}
	return VolumeSpec{volume.CreateRequest{
		Name:   v.Name,
		Driver: v.Driver,
		Labels: map[string]string{LabelProject: p.Name, LabelVolume: key, LabelConfigHash: hash},
	}}, nil
}
