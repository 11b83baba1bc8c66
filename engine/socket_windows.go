// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

// socketOwner says nothing on Windows: a pipe's owner does not show who may use it.
func socketOwner(string) string { return "" }

// permissionHint says how to be let in.
func permissionHint(string) string {
	return "run the command in a terminal of an administrator, or join the group docker-users and log in again"
}
