// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
)

// Run serves the machine until its VM is off or ctx is done, which stops it in order. It returns nil after a stop that was asked for, and
// otherwise why the machine did not start or did not go on.
func Run(ctx context.Context, o Options) error {
	if _, err := o.withDefaults(); err != nil {
		return err
	}
	return errors.ErrUnsupported
}
