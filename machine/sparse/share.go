// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"errors"
	"fmt"
	"os"
)

// Next finds the next part of f from an offset on that may hold data; start is size where there is none. Systems that do not tell holes say that the
// rest may.
func Next(f *os.File, from, size int64) (start, end int64, err error) {
	e, err := nextData(f, from, size)
	return e.from, e.to, err
}

// Clone makes dst, which must not exist, share all blocks of src until one is written to: that takes an instant. errors.ErrUnsupported: the file system
// cannot. The caller syncs it.
func Clone(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("clone disk: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("clone disk: %w", err)
	}
	if err := cloneFile(out, in); err != nil {
		return errors.Join(fmt.Errorf("clone disk %q: %w (%w)", src, errors.ErrUnsupported, err), out.Close(), os.Remove(dst))
	}
	return out.Close()
}
