// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

// OpKind names the one engine call an operation makes.
type OpKind string

// The kinds of operations. The comment names the payload fields of [Op] that each uses.
//
// An operation whose outcome is there already succeeds, because somebody else, or an earlier attempt whose answer was lost, may have been
// there first: removing what is gone, stopping or killing what does not run, starting what runs, creating a network or volume of that name that
// carries the project's label, renaming to the name it has. Removing a container that is being removed waits for that removal.
const (
	OpPullImage        OpKind = "pull image"        // Image
	OpBuildImage       OpKind = "build image"       // Build
	OpRemoveImage      OpKind = "remove image"      // Image
	OpCreateNetwork    OpKind = "create network"    // Network
	OpRemoveNetwork    OpKind = "remove network"    // Ref
	OpCreateVolume     OpKind = "create volume"     // Volume
	OpRemoveVolume     OpKind = "remove volume"     // Ref
	OpFillVolume       OpKind = "fill volume"       // Ref, Content: with what was saved of it; engines know no content by themselves
	OpCreateContainer  OpKind = "create container"  // Container
	OpCopyFiles        OpKind = "copy files"        // Ref, Files: into a created container, before it starts
	OpStartContainer   OpKind = "start container"   // Ref
	OpStopContainer    OpKind = "stop container"    // Ref, Timeout
	OpRestartContainer OpKind = "restart container" // Ref, Timeout
	OpKillContainer    OpKind = "kill container"    // Ref, Signal
	OpPauseContainer   OpKind = "pause container"   // Ref
	OpUnpauseContainer OpKind = "unpause container" // Ref
	OpRenameContainer  OpKind = "rename container"  // Ref, Name
	OpRemoveContainer  OpKind = "remove container"  // Ref, Volumes, Force
	OpRunHook          OpKind = "run hook"          // Ref, Hook
	OpRunProvider      OpKind = "run provider"      // Service, Name: the command (down, stop); engines know no providers
	OpAwait            OpKind = "await"             // Ref, Condition: no call of its own; it waits for the engine's events
)

// Op is one operation of a plan: one engine call, the reason for it, and the operations that must have succeeded before it.
// Only the payload fields that its kind names are set.
type Op struct {
	// ID is the operation's place in its plan, from 1. Needs holds smaller IDs only.
	ID    int
	Kind  OpKind
	Needs []int
	// After lists operations, of smaller IDs too, that must have ended before this one, in whatever way.
	After []int
	// Fallback, unless 0, is the operation (of a smaller ID) that this one stands in for: it is carried out only if that one failed. If that
	// one succeeded, its result counts as the result of this one.
	Fallback int
	// Target is the name the user knows: "container app-web-1", "network app_default", "image nginx".
	Target string
	// Service is the service the operation is done for; empty for networks and volumes.
	Service string
	// Reason says why, in one phrase: "not there", "environment.DEBUG changed", "orphan".
	Reason string
	// Changes are the fields behind the reason, when it is a changed configuration.
	Changes []Change
	// Destructive marks an operation that loses something that cannot be made again from the Compose files.
	Destructive bool
	// BestEffort marks an operation whose failure is reported but fails nothing that needs it (an optional dependency).
	BestEffort bool

	Ref       Ref
	Name      string
	Timeout   *time.Duration // nil: the container's own stop timeout
	Signal    string
	Volumes   bool // remove anonymous volumes too
	Force     bool
	Condition Condition
	Container *ContainerSpec
	Network   *NetworkSpec
	Volume    *VolumeSpec
	Image     *ImageSpec
	Build     *BuildSpec
	Files     []File
	Hook      *types.ServiceHook
	// Content names what a volume is filled with, to whoever carries the operation out.
	Content string
}

// Ref names something an operation acts on: by ID (or name, for networks, volumes and images) when it existed before the plan, else by the operation
// that makes it.
type Ref struct {
	ID string
	Op int
}

// Condition is what an await operation waits for.
type Condition string

// The conditions, named as in the Compose specification's depends_on where it has them.
const (
	// ConditionStarted needs no waiting: an operation that needs it needs the start operation itself.
	ConditionStarted   Condition = types.ServiceConditionStarted
	ConditionHealthy   Condition = types.ServiceConditionHealthy
	ConditionCompleted Condition = types.ServiceConditionCompletedSuccessfully
	// ConditionRunningOrHealthy is what `up --wait` asks for: healthy if there is a health check, else running; a container
	// that exited with 0 satisfies it too (an init job).
	ConditionRunningOrHealthy Condition = "service_running_or_healthy"
)

// ContainerSpec is all the engine needs to create a container, in its own API types.
type ContainerSpec struct {
	Name     string
	Platform string // os/arch[/variant], empty for the engine's own
	Config   *container.Config
	Host     *container.HostConfig
	Networks *network.NetworkingConfig
	// Image, when set, is the operation that makes the image; Resolve then fills LabelImage with what it made.
	Image Ref

	later *later // references to containers of the same plan; see Resolve
}

// NetworkSpec is a network to create.
type NetworkSpec struct {
	Name       string
	Driver     string
	Options    map[string]string
	IPAM       *network.IPAM
	Internal   bool
	Attachable bool
	EnableIPv4 *bool
	EnableIPv6 *bool
	Labels     map[string]string
}

// VolumeSpec is a volume to create.
type VolumeSpec struct {
	volume.CreateRequest
}

// ImageSpec is an image to pull or remove.
type ImageSpec struct {
	Ref      string
	Platform string
}

// BuildSpec is an image to build for a service.
type BuildSpec struct {
	Service string
	Config  types.BuildConfig
	// Tags are the names the result gets: the service's image first.
	Tags      []string
	Platforms []string
	NoCache   bool
	Pull      bool
	Push      bool
	// Secrets and SSH are resolved from the project; contexts named service:NAME are in Needs.
	Secrets map[string]types.SecretConfig
}

// File is a file put into a container before it starts: a config or secret given inline, by the environment, or with an owner or mode of its own.
type File struct {
	Path     string
	Content  []byte
	UID, GID int
	Mode     uint32
}

// Change is one field that differs between what a container was made from and what is wanted now. Old and New are rendered values,
// already masked where the field may hold a secret; absent is the empty string with OldSet or NewSet false.
type Change struct {
	Field          string // path in the service: environment.DEBUG, ports[0].published
	Old, New       string
	OldSet, NewSet bool
}
