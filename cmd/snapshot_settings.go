// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"path/filepath"
	"time"

	"github.com/seed71221737/dev/engine/config"
)

// automaticSnapshots says whether volumes are saved before they are removed, and up to which size in bytes. CI=true, which continuous integration
// services set, switches it off unless the configuration says otherwise: nobody looks for a snapshot there.
func (a *app) automaticSnapshots() (limit int64, on bool, err error) {
	dir, err := a.userDir()
	if err != nil {
		return 0, false, err
	}
	c, err := config.Load(filepath.Join(dir, config.FileName))
	if err != nil {
		return 0, false, err
	}
	limit, err = c.Snapshots.LimitBytes()
	on = !isTrue(a.getenv("CI"))
	if c.Snapshots.BeforeDown != nil {
		on = *c.Snapshots.BeforeDown
	}
	return cmp.Or(limit, automaticLimit), on, err
}

// now is the time, to a second: finer times are nobody's business in names and lists.
func (a *app) now() time.Time { return time.Now().Truncate(time.Second) }
