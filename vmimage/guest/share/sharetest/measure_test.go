// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
)

var (
	measureDir = flag.String("measure", "", "measure this folder, which Prepare has filled, and print the figures as JSON")
	measureRun = flag.Int("measure-run", 0, "which of the trees to read")
	scale      = flag.Int("scale", 1, "read and create so many times fewer files")
)

// TestMeasure takes figures of any folder; compiled, it does so in a machine. Without one it makes sure that all that is measured works.
func TestMeasure(t *testing.T) {
	dir := *measureDir
	if dir == "" {
		dir, *scale = t.TempDir(), 10
		if err := Prepare(dir, 1); err != nil {
			t.Fatal(err)
		}
	}
	figures, err := Measure(dir, *measureRun, *scale)
	if err != nil {
		t.Fatal(err)
	}
	if len(figures) != 8 {
		t.Errorf("%d figures: %v", len(figures), figures)
	}
	if *measureDir == "" {
		return
	}
	data, err := json.Marshal(figures)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "figures: %s\n", data)
}
