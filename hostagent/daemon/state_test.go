// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"strconv"
	"testing"

	"github.com/seed71221737/dev/hostagent"
)

// Why a start boots is said before the command that asked for it can follow: it is told all the same, before the phase that ends the command.
func TestSaidBeforeFollowed(t *testing.T) {
	s := newState("box", 1, slog.New(slog.DiscardHandler))
	for i := range maxSaid + 3 {
		s.say("reason " + strconv.Itoa(i))
	}
	s.enter(hostagent.Running, "")
	w := s.watch()
	for i := 3; i < maxSaid+3; i++ {
		if e := <-w.events; e.Kind != "log" || e.Text != "reason "+strconv.Itoa(i) {
			t.Fatalf("event %+v, want reason %d", e, i)
		}
	}
	if e := <-w.events; e.Phase != hostagent.Running {
		t.Errorf("event %+v, want the phase", e)
	}
}
