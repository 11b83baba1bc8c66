// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// wideProject has n services, each tenth depending on the one before it.
func wideProject(n int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%d:\n    image: nginx\n    environment: {A: \"1\", B: \"2\"}\n    volumes: [\"v%d:/data\"]\n", i, i%10)
		if i%10 > 0 {
			fmt.Fprintf(&b, "    depends_on: [s%d]\n", i-1)
		}
	}
	b.WriteString("volumes:\n")
	for i := range 10 {
		fmt.Fprintf(&b, "  v%d:\n", i)
	}
	return b.String()
}

func BenchmarkNewPlan(b *testing.B) {
	for _, n := range []int{50, 500} {
		p := load(b, wideProject(n))
		empty := newFakeEngine()
		empty.provide(p)
		full := newFakeEngine()
		full.provide(p)
		if err := full.up(p, PlanOptions{}); err != nil {
			b.Fatal(err)
		}
		for name, f := range map[string]*fakeEngine{"first": empty, "no change": full} {
			have, _ := f.Observe(context.Background(), QueryFor(p))
			b.Run(fmt.Sprintf("%d services, %s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := NewPlan(p, have, PlanOptions{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
