// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package watch tells what changes in folders of the host, and proposes from a Dockerfile what of it matters to a service.
//
// A [Tree] is a set of roots, folders with all below them or files, that need not exist yet. The operating system's events are taken as hints
// only: a path that they name is looked at once it has been quiet for a moment, and compared with what was there before. So a lost event, an
// overflowing queue or a file that is written twice cannot mislead, and a change of nothing is none. Changes come in sets ([Tree.Next]): a
// saved file within milliseconds, a git checkout of many files in few.
package watch
