// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package enginetest gives tests a real engine.
//
// A package that wants one calls Isolate first thing in TestMain:
//
//	func TestMain(m *testing.M) {
//		enginetest.Isolate()
//		os.Exit(m.Run())
//	}
//
// Isolate runs the whole test binary again inside namespaces of its own
// (processes, mounts, network), so that an engine that a test starts is alone
// there: it owns docker0 and the firewall, published ports are reachable on
// the test's own loopback, and whatever a test leaves behind (containers,
// mounts, processes) is gone when the binary ends, even by kill -9.
//
// Start then returns the one engine of the test binary, started at first use.
// Where it is impossible (no root, no Linux, no bundle) tests that call Start
// are skipped with the reason; with DEV_TEST_ENGINE=require they fail instead.
//
// The network has nothing but loopback. HostNetwork keeps the host's, for
// tests whose containers need to reach the outside; only one such test binary
// runs at a time.
package enginetest
