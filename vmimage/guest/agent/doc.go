// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package agent is the machine's side of the link to its host: an SSH server with shell and exec (with or without a terminal), sftp, channels to unix
// and TCP sockets in the machine, and the control subsystem of package proto.
//
// Only keys from the seed may log in, there are no passwords, and a connection gets nothing before it has authenticated: containers in the machine can
// reach the port, and no further. Whoever logs in is root, because whoever drives the engine is.
package agent
