// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"time"

	"golang.org/x/sys/windows"
)

// bootID tells one boot of the host from another by when it was, to the minute. A clock that was set makes it another, which costs a
// test guest.
func bootID() string {
	return time.Now().Add(-windows.DurationSinceBoot()).UTC().Truncate(time.Minute).Format(time.RFC3339)
}
