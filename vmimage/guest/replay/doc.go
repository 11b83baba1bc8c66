// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package replay makes programs in the guest see changes of the host: it repeats what happened to a shared folder as real operations on the share's mount,
// so that the kernel tells inotify and fanotify watches of it by its true kind, in every mount and container that has the folder.
//
// The share's FUSE server knows the operations by the thread that makes them ([Player.Mine]), answers them from what the guest has been told and from what
// [Player.Answer] says, and carries none of them out: nothing reaches the host, so nothing can echo or loop. The operations are
//
//	created     mknod, mkdir, symlink
//	modified    utimensat of the modification time alone, which the kernel takes for a change of content
//	closed      open for writing and close; with a modification before it, the modification comes between the two
//	attributes  utimensat of both times
//	deleted     unlink, rmdir
//	moved       rename
//
// Where nobody watches, nothing is repeated, and what the kernel has cached is made invalid instead. Who watches is read from /proc/*/fdinfo, where
// the kernel lists watched inodes by FUSE's own numbers. Folders that the kernel knows are moved in any case, so that watches below them go with them.
package replay
