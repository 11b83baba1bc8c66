// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// guestClock steps the guest's clock both ways, as a sleeping laptop and a bad time server do.
func guestClock(t *testing.T, l *lab) {
	for _, step := range []time.Duration{-12 * time.Hour, 12 * time.Hour} {
		l.guest(t, fmt.Sprintf("date -s @%d", time.Now().Add(step).Unix()))
		l.awaitClock(t, 0)
	}
}

// awaitClock waits until the guest's clock is that far ahead of this one.
func (l *lab) awaitClock(t *testing.T, ahead time.Duration) {
	t.Helper()
	await(t, fmt.Sprintf("the guest's clock is %v ahead", ahead), func() bool {
		seconds, err := strconv.ParseInt(l.guest(t, "date +%s"), 10, 64)
		return err == nil && (time.Until(time.Unix(seconds, 0))-ahead).Abs() < 30*time.Second // the command itself takes a while here
	})
}

// hostClock steps the host's clock both ways, as its agent sees it, while a container runs: the guest's follows.
func hostClock(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	step := l.stepped(t)
	l.up(t)
	proof := l.sleeper(t)
	before := proof()
	for _, ahead := range []time.Duration{-12 * time.Hour, 12 * time.Hour} {
		step(ahead)
		l.awaitClock(t, ahead)
		l.whole(t)
		l.dev(t, "machine", "suspend", "box")
		step(-ahead) // a laptop sleeps, too, while its clock is set
		l.dev(t, "machine", "resume", "box")
		l.awaitClock(t, -ahead)
		if proof() != before {
			t.Error("the container was started anew")
		}
	}
	l.whole(t)
}

// stepped has the machine's agent, for the time of a test, be one whose clock step sets: where it tells the guest the time it asks steppedNow, and nothing else in
// it differs.
func (l *lab) stepped(t *testing.T) (step func(ahead time.Duration)) {
	t.Helper()
	offset, dir := filepath.Join(l.home, "offset"), t.TempDir()
	step = func(ahead time.Duration) {
		if err := os.WriteFile(offset+".new", []byte(ahead.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(offset+".new", offset); err != nil {
			t.Fatal(err)
		}
	}
	step(0)
	daemon, err := filepath.Abs(filepath.Join("..", "..", "hostagent", "daemon"))
	if err != nil {
		t.Fatal(err)
	}
	replaced := map[string]string{}
	put := func(name, text string) {
		replaced[filepath.Join(daemon, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, asks := range map[string]string{"clock.go": "time.Now()", "start.go": "time.Now()", "thaw.go": "time.Now().Round(0)"} {
		text, err := os.ReadFile(filepath.Join(daemon, name))
		if err != nil || !strings.Contains(string(text), asks) {
			t.Fatalf("%s does not ask for the time: %v", name, err)
		}
		put(name, strings.NewReplacer(asks, "steppedNow()", "time.Since(", "steppedNow().Sub(").Replace(string(text)))
	}
	put("stepped.go", fmt.Sprintf(steppedClock, offset))
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(l.home, "stepped", "dev-hostagent")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", agent, "../../cmd/dev-hostagent").CombinedOutput(); err != nil {
		t.Fatalf("build an agent: %v\n%s", err, out)
	}
	before := l.env
	l.env = append(slices.Clone(before), "DEV_HOSTAGENT_PROGRAM="+agent)
	t.Cleanup(func() {
		l.dev(t, "machine", "stop", "box")
		l.env = before
	})
	return step
}

// steppedClock is a clock that is ahead of the real one by what a file says.
const steppedClock = `package daemon

import (
	"os"
	"time"
)

func steppedNow() time.Time {
	text, _ := os.ReadFile(%q)
	ahead, _ := time.ParseDuration(string(text))
	now := time.Now()
	if ahead == 0 {
		return now
	}
	return now.Round(0).Add(ahead)
}
`
