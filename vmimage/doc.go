// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package vmimage makes, verifies, stores and distributes the system that dev boots in virtual machines: a kernel, an initial RAM disk, a
// read-only root file system with the engine in it, and a UEFI-bootable disk of the three.
//
// Vocabulary: a spec says what goes into an image; a lock pins every Debian package of it by version and digest; a build makes an image for one
// architecture from spec, lock, engine bundle and guest program; a manifest lists an image's files and components with their digests; a
// store is the folder of images on this host, shared by machines and never written to once an image is in it.
//
// Building is pure Go, needs no root and works the same on every system; the same inputs give the same bytes. Files that leave a build or enter a
// store are written aside, synced and renamed. Archives are foreign input: see package deb.
//
// The code that runs inside a machine is in vmimage/guest; this package must not import it. It must not import machine, compose or cmd.
package vmimage
