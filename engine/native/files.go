// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"errors"
	"io/fs"
	"os"
)

// remove removes a file that may be gone already.
func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeVolatile writes a file that is made anew at every start and read by
// nobody before: it needs neither syncing nor renaming. What another run of
// other rights left is not reused.
func writeVolatile(name string, data []byte, mode fs.FileMode) error {
	if err := remove(name); err != nil {
		return err
	}
	return os.WriteFile(name, data, mode)
}
