// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

package vhostuser

import (
	"errors"
	"log/slog"
)

// Relay is a socket for a VM's device; there is none here.
type Relay struct{}

// Listen fails: there are no such devices here.
func Listen(_, _ string, _ *slog.Logger) (*Relay, error) {
	return nil, errors.New("virtiofs is for Linux hosts")
}

// Close does nothing.
func (*Relay) Close() error { return nil }
