// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package deb is a client of Debian's archive that needs no Debian: it verifies a suite's signed InRelease file, follows its digests to the
// package index and from there to each package, resolves dependencies, and reads the packages' files.
//
// Vocabulary: an archive is a base URL with dists/ and pool/ below it; a suite is a named release in it (bookworm); an index is the suite's
// list of binary packages of one component and architecture; a relation is one alternative of a dependency.
//
// Everything read here is foreign input. Nothing is believed before its digest or signature was checked, sizes are bounded, and paths that
// leave the root are refused by name. The package does no network I/O: callers hand it a function that fetches.
package deb
