// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package share serves a folder of the host to a machine, where package vmimage/guest/share has it mounted.
//
// A Server knows the folder and outlives connections: each Serve is one of them, and what a session asked over an earlier one is not done twice. Paths come from
// the guest and are not trusted: none leads out of the folder, neither by "..", nor by a symbolic link, nor by one that is put in its place meanwhile, because
// symbolic links are never followed: the guest follows them, among its own files.
//
// Files have owners and modes as the machine's programs set them. A server that runs as root keeps them as they are. Another one owns everything it makes:
// owners, and modes that the host's user must not or cannot have, are kept beside the file (extended attribute user.dev.stat).
package share
