// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"testing"
)

// TestRestoreInterrupted kills a restore after each of its operations: the same restore, planned again, ends with the content in place, and the containers
// as they were.
func TestRestoreInterrupted(t *testing.T) {
	const yaml = `
services:
  db: {image: db, volumes: ["data:/data", "/anonymous"]}
  cache: {image: cache, volumes: ["data:/data"], scale: 2}
volumes: {data: }
`
	for n := 0; ; n++ {
		p, engine := load(t, yaml), newFakeEngine()
		engine.provide(p)
		if err := engine.up(p, PlanOptions{}); err != nil {
			t.Fatal(err)
		}
		restore := func(by Engine) error {
			have, err := engine.Observe(context.Background(), QueryFor(p))
			if err != nil {
				return err
			}
			plan, err := NewRestorePlan(p, have, map[string]string{"data": "saved"})
			if err != nil {
				return err
			}
			return Apply(context.Background(), plan, by, Discard, ApplyOptions{Parallel: 1})
		}
		dying := &dyingEngine{fakeEngine: engine}
		dying.left.Store(int32(n))
		killed := restore(dying)
		if killed != nil && !errors.Is(killed, errKilled) {
			t.Fatalf("killed after %d operations: %v", n, killed)
		}
		if err := restore(engine); err != nil {
			t.Fatalf("again after %d operations: %v", n, err)
		}
		if engine.contents["app_data"] != "saved" {
			t.Errorf("after %d operations: content %q", n, engine.contents["app_data"])
		}
		if err := engine.up(p, PlanOptions{}); err != nil {
			t.Errorf("up after %d operations: %v", n, err)
		}
		if plan, err := engine.plan(p, PlanOptions{}); err != nil || !plan.Empty() || engine.contents["app_data"] != "saved" {
			t.Errorf("after %d operations and up: %v, %v, content %q", n, plan, err, engine.contents["app_data"])
		}
		if killed == nil {
			return
		}
	}
}
