// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package vhostuser stands between a VM's virtiofs device and the program that serves it (QEMU's docs/interop/vhost-user.rst). It only passes on what they agree
// on; requests of the guest's go through the memory they share. When the program ends, the relay takes its place and answers whatever the guest asks or has
// asked with "not connected". Without that the guest would wait for ever, and could not even let the device go.
package vhostuser
