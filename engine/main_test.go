// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/seed71221737/dev/engine/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.Isolate()
	goleak.VerifyTestMain(m)
}
