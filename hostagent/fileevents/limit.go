// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"fmt"
	"strconv"
)

// LimitError tells that the system lets this user watch no more folders.
type LimitError struct {
	// Setting is the sysctl that limits, Enough a value that suffices.
	Setting string
	Enough  int
	Err     error
}

// Error names the setting.
func (e *LimitError) Error() string {
	return fmt.Sprintf("the limit %s of this host is reached: %v", e.Setting, e.Err)
}

// Unwrap returns the system's error.
func (e *LimitError) Unwrap() error { return e.Err }

// Hint is the command that raises the limit.
func (e *LimitError) Hint() string {
	return "allow more with `sudo sysctl " + e.Setting + "=" + strconv.Itoa(e.Enough) + "` (and in /etc/sysctl.d to keep it)"
}
