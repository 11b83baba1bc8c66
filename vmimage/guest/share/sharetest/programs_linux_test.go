// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import "testing"

// What the cases ask of folders has to hold on a disk. TestCases runs all of them.
func TestSameTrees(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	if err := write(a+"/f", "one"); err != nil {
		t.Fatal(err)
	}
	if sameTrees(a, b) == nil {
		t.Error("a folder with a file is like an empty one")
	}
	if err := write(b+"/f", "two"); err != nil {
		t.Fatal(err)
	}
	if sameTrees(a, b) == nil {
		t.Error("two texts are like each other")
	}
}
