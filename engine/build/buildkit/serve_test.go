// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"net"
	"strings"
	"testing"

	"github.com/seed71221737/dev/engine/build/wire"
)

// TestServeRefusesAnotherVersion and ends with its connection.
func TestServeRefusesAnotherVersion(t *testing.T) {
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Serve(t.Context(), theirs) }()
	dev, err := wire.Open(ours)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := dev.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	var got wire.Event
	if err := wire.Write(stream, wire.Request{Version: wire.Version + 1}); err != nil {
		t.Fatal(err)
	}
	if err := wire.Read(stream, &got); err != nil || got.Failure == nil || !strings.Contains(got.Failure.Text, "different versions") {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
