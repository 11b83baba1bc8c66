// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

package enginetest

import "runtime"

const stageServe = "serve"

// Option changes what Isolate isolates.
type Option int

// HostNetwork keeps the host's network.
const HostNetwork Option = 1

// Isolate does nothing: there is no engine here.
func Isolate(...Option) {}

// unavailable says why Start cannot start an engine.
func unavailable() string { return "it runs natively only on Linux, not on " + runtime.GOOS }
