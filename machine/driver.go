// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"

	"github.com/seed71221737/dev/hostagent"
)

// Driver runs machines on one hypervisor. Its methods are safe for concurrent use on different machines.
type Driver interface {
	// Check names what such a machine lacks on this host and how to get it; nil: it can run. Errors may have a Hint.
	Check(ctx context.Context, spec Spec) error
	// Prepare makes what the driver needs in the machine's folder besides the data disk. It is called before every start, must change nothing that is
	// as it should be, and may be killed and repeated.
	Prepare(ctx context.Context, dir Dir, spec Spec) error
	// Start starts the VM with its devices on the link. The VM outlives ctx; a VM that could not start leaves no process.
	Start(ctx context.Context, dir Dir, spec Spec, link hostagent.Link) (hostagent.VM, error)
}

// Finder is a driver that finds a VM whose host agent has died.
type Finder interface {
	// Find returns the machine's VM that runs without an agent, or nil. It is called only while no agent runs.
	Find(ctx context.Context, dir Dir) (hostagent.VM, error)
}

// Validator is a driver that knows what it can run: it looks at driver, arch, accelerator and options of a spec.
type Validator interface {
	Validate(spec Spec) error
}

// Prober is a driver that runs machines in more than one way.
type Prober interface {
	// Probe tries anew how such a machine would run, whatever is remembered of it.
	Probe(ctx context.Context, spec Spec) (Probe, error)
}

// Probe is what a driver found out about an accelerator.
type Probe struct {
	// Accelerator is the host's own; Why says why it does not work, "" if it does, or is not wanted.
	Accelerator, Why string
	// Forget makes the driver forget that it worked; nil where that is not remembered.
	Forget func() error
}
