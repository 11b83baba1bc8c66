// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import "context"

// PrepareRestore goes as far with a restore as it can go before it is decided, as a command that is killed then does.
func PrepareRestore(ctx context.Context, m *Machine, name, safety string) error {
	snap, spec, err := m.restorable(ctx, name)
	if err == nil {
		_, err = m.prepareSwitch(ctx, snap, spec, safety, reasonRestore, nil)
	}
	return err
}
