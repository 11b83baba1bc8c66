// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import "context"

// Link is what the host agent offers a VM before it starts: where its devices are attached. Drivers turn it into arguments.
type Link struct {
	// Network is the unix socket (QEMU's -netdev stream, vfkit's unixgram) on which the agent's user-space network takes the VM's card; "": no card.
	Network string
	// MAC is the card's address.
	MAC string
	// Seed is the raw disk with the seed of this boot (vmimage/guest/proto), written anew for each start.
	Seed string
	// Console is the file that the serial console is appended to.
	Console string
	// Shares are the host folders served to the guest.
	Shares []ShareLink
	// Data is the writable disk; "": the machine's own. Disks are further ones.
	Data  string
	Disks []Disk
	// State is a saved memory state to restore instead of booting; "": boot. That it fits is the caller's to know.
	State string
	// Loaded is called once State is loaded whole and sound, before the guest's processors run for the first time; nil: nobody. Its error ends the start.
	Loaded func(ctx context.Context) error
}

// ShareLink is one share's vhost-user socket, served by virtiofsd.
type ShareLink struct {
	Tag    string
	Socket string
}

// Disk is a raw disk besides the usual ones.
type Disk struct {
	// Name is its serial number in the guest: at most 20 letters.
	Name, File string
	// Discard: what the guest writes is forgotten, and File stays as it is.
	Discard bool
}

// VM is a virtual machine that a driver started. Its methods are safe for concurrent use.
type VM interface {
	// Done is closed when the VM's process has ended and was waited for.
	Done() <-chan struct{}
	// Err says why the VM ended, once Done is closed; nil after a power-off.
	Err() error
	// PowerOff presses the power button. It does not wait for the guest.
	PowerOff(ctx context.Context) error
	// Kill ends the VM at once and waits for its process.
	Kill(ctx context.Context) error
	// PID is a diagnostic; 0 where there is no process of ours.
	PID() int
}

// Suspender is a VM whose memory can be saved.
type Suspender interface {
	// Suspend stops the guest's processors, writes memory and devices to file (created, fsynced), calls still once nothing will be written to the disks any
	// more, and ends the VM's process. After an error, also of still, the VM runs on as before, and file is gone.
	Suspend(ctx context.Context, file string, still func(ctx context.Context) error) error
}

// Snapshotter is a VM whose memory can be saved while it goes on.
type Snapshotter interface {
	// Snapshot stops the guest's processors, writes memory and devices to file, calls paused (to copy the disk as it is then) and lets the VM run on, also
	// after an error; then file is gone.
	Snapshot(ctx context.Context, file string, paused func(ctx context.Context) error) error
}

// Plugger is a VM that takes shares while it runs. Those of the Link are plugged in the same way. A VM with a share plugged in cannot be suspended.
type Plugger interface {
	Plug(ctx context.Context, s ShareLink) error
	// Unplug returns once the guest has let the device go. The guest must have unmounted it.
	Unplug(ctx context.Context, tag string) error
}

// Ballooner is a VM that memory can be taken from while it runs.
type Ballooner interface {
	// Balloon asks the guest to keep to so many bytes of its memory, and gives the rest back to the host as the guest lets go of it.
	Balloon(ctx context.Context, bytes int64) error
	// BalloonSize is how many bytes the guest has now.
	BalloonSize(ctx context.Context) (int64, error)
}

// Resizer is a VM whose data disk can grow while it runs.
type Resizer interface {
	// ResizeDisk makes the data disk's file, and the disk that the guest sees, so many bytes large. It never makes it smaller.
	ResizeDisk(ctx context.Context, bytes int64) error
}

// Staller is a VM that stops by itself when the host cannot keep what it writes.
type Staller interface {
	// Stalled tells why, each time that it has stopped. It holds the last reason that nobody has taken.
	Stalled() <-chan error
	// Stands says whether it stands still for that reason now.
	Stands(ctx context.Context) (bool, error)
	// Continue lets it run on, and repeats what failed.
	Continue(ctx context.Context) error
}

// Types of shares.
const (
	// ShareFUSE is a share of our own: the guest mounts it by FUSE and this side serves it, whatever the hypervisor.
	ShareFUSE = "fuse"
	// ShareVirtiofs is a device of the VM, served by virtiofsd.
	ShareVirtiofs = "virtiofs"
)

// How much a guest believes of what it has read through virtiofs. Watched: until it is told that the host has changed it. Auto: for a second. Always: until it
// changes it itself, or has to forget it. Never: nothing, not even what a program has just read.
const (
	CacheWatched = "watched"
	CacheAuto    = "auto"
	CacheAlways  = "always"
	CacheNever   = "never"
)
