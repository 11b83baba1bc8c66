// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"testing"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/enginetest"
)

func TestRealLeftovers(t *testing.T) {
	r := newReal(t)
	api := enginetest.Start(t).Client(t)
	const name = "leftover-of-nobody"
	made, err := api.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{Labels: map[string]string{compose.LabelProject: name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = api.NetworkRemove(t.Context(), made.ID, client.NetworkRemoveOptions{})
	})
	left := func() (Leftover, bool) {
		all, err := r.Leftovers(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(l Leftover) bool { return l.Name == name })
		if i < 0 {
			return Leftover{}, false
		}
		return all[i], true
	}
	l, ok := left()
	if !ok || l.String() != "network "+name || l.Why == "" {
		t.Fatalf("got %+v, %t", l, ok)
	}
	for range 2 { // the second time it is gone already
		if err := r.RemoveLeftover(r.ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	if l, ok := left(); ok {
		t.Errorf("still there: %+v", l)
	}
}
