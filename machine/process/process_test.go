// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "wait-to-be-killed") {
		time.Sleep(10 * time.Minute)
	}
	os.Exit(m.Run())
}

func TestFindAndKill(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"wait-to-be-killed", "a b", "", "ü,\"\\", "-x=" + t.TempDir()}
	match := func(a []string) bool { return slices.Equal(a[1:], args) }
	if found, err := Find(t.Context(), match); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	c := exec.Command(program, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { _ = c.Process.Kill() })
	var found []Process
	for deadline := time.Now().Add(time.Minute); len(found) == 0; time.Sleep(5 * time.Millisecond) {
		if found, err = Find(t.Context(), match); err != nil || time.Now().After(deadline) {
			t.Fatal("not found: ", err)
		}
	}
	if len(found) != 1 || found[0].PID != c.Process.Pid || !found[0].Alive() {
		t.Fatalf("found %+v, started %d", found, c.Process.Pid)
	}
	// A process of the same number that is another one is not touched.
	other := Process{PID: c.Process.Pid, Args: []string{"another"}}
	if other.Alive() {
		t.Error("a process is taken for another of its number")
	}
	if err := other.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if !found[0].Alive() {
		t.Fatal("a process was killed for its number")
	}
	for range 2 {
		if err := found[0].Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err == nil {
		t.Error("it was not killed")
	}
	if found[0].Alive() {
		t.Error("alive after its end")
	}
}
