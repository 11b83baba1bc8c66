// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"

	"github.com/seed71221737/dev/hostagent"
)

// Driver runs machines on one hypervisor. Its methods are safe for concurrent use on different machines.
type Driver interface {
	// Check names what is missing on this host and how to get it; nil: machines can run. Errors may have a Hint.
	Check(ctx context.Context) error
	// Prepare makes what the driver needs in the machine's folder. It is called before every start, must change nothing that is
	// as it should be, and may be killed and repeated.
	Prepare(ctx context.Context, dir Dir, spec Spec) error
	// Start starts the VM with its devices on the link. The VM outlives ctx; a VM that could not start leaves no process.
	Start(ctx context.Context, dir Dir, spec Spec, link hostagent.Link) (hostagent.VM, error)
}
