// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"io"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/seed71221737/dev/engine/enginetest"
)

func TestMain(m *testing.M) {
	actAsSSH()
	enginetest.Isolate()
	logrus.SetOutput(io.Discard) // the registry's in tests
	// The real engine's supervisor is waited for as long as the test binary lives; a registry never ends its events.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/seed71221737/dev/engine/native.(*Service).spawn.func1"),
		goleak.IgnoreAnyFunction("github.com/docker/go-events.(*Broadcaster).run"))
}
