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

// spare leaves some of what the system allows this user to other programs: a guest says which folders are watched, and must not take all. The lock of the set is
// not held.
func (w *Watcher) spare(path string) error {
	w.setMu.Lock()
	defer w.setMu.Unlock()
	if w.most == 0 || w.set.count < w.most || w.set.has(path) {
		return nil
	}
	return &LimitError{Setting: watchesSetting, Enough: 1 << 20, Err: fmt.Errorf("%d folders of this share are watched, and the rest is left to other programs", w.set.count)}
}

// watchesSetting is how many folders a user may have watched on Linux.
const watchesSetting = "fs.inotify.max_user_watches"

// shareOfWatches is the part of them that one share may have: a half.
const shareOfWatches = 2
