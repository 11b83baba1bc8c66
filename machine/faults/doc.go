// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package faults makes faults happen to real machines and looks at what is left. It is all tests: each fault of docs/reliability.md is a subtest of
// TestVMFaults, named by it, which breaks something the way it breaks for users (kill -9 at a step, a full disk, a power cut, a stepped clock) and then
// asserts three things: the next command works, nothing that was written is lost, and no process of the machine is left that nobody owns.
//
// The machine is made, started and looked at with the program itself, as a user does it: this package imports nothing of it but the test engine's image.
package faults
