// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"encoding/csv"
	"fmt"
	"strings"

	"github.com/seed71221737/dev/engine/build/wire"
)

// cacheEntries reads cache_from and cache_to: comma-separated key=value pairs with a type, or an image reference alone, as docker build
// reads them.
func cacheEntries(texts []string) ([]wire.Cache, error) {
	var all []wire.Cache
	for _, text := range texts {
		e, err := newCacheEntry(text)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

func newCacheEntry(text string) (wire.Cache, error) {
	if text != "" && !strings.ContainsAny(text, "=,") {
		return wire.Cache{Type: "registry", Attrs: map[string]string{"ref": text}}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return wire.Cache{}, fmt.Errorf("%q: %w", text, err)
	}
	e := wire.Cache{Attrs: map[string]string{}}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return wire.Cache{}, fmt.Errorf("%q: %q is not of the form key=value", text, field)
		}
		if key = strings.ToLower(strings.TrimSpace(key)); key == "type" {
			e.Type = value
		} else {
			e.Attrs[key] = value
		}
	}
	if e.Type == "" {
		return wire.Cache{}, fmt.Errorf("%q: has no type (type=registry, type=local, …)", text)
	}
	return e, nil
}
