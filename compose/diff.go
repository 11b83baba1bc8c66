// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// DiffServices lists the fields that differ, ordered by path, secrets masked.
func DiffServices(before, after types.ServiceConfig) []Change {
	a, b := configTree(before), configTree(after)
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	var changes []Change
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !reflect.DeepEqual(a[k], b[k]) {
			_, inA := a[k]
			_, inB := b[k]
			changes = append(changes, Change{Field: k, OldSet: inA, NewSet: inB})
		}
	}
	return changes
}

func configTree(s types.ServiceConfig) map[string]any {
	b, _ := json.Marshal(s)
	var t map[string]any
	_ = json.Unmarshal(b, &t)
	return t
}
