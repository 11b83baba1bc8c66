// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package sharetest says whether a folder behaves as a file system of Linux' is expected to, and how fast it is. It is pointed at any folder: a share of our own or a
// virtiofs in a machine, a mount on this host, or a disk to compare with.
//
// Cases are written after the documentation of the calls and after what the cases of pjdfstest are about, which are for other systems' tools; no code is theirs.
package sharetest
