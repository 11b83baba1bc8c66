// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import "time"

// Snapshot is what an engine had of one project at one moment. It is read-only once taken; plans are made from it alone.
type Snapshot struct {
	// Now is the engine's time when the snapshot was taken; ages ("pull policy weekly") are measured against it.
	Now time.Time
	// Containers are all containers labelled with the project, in any state, one-offs included, ordered by name.
	Containers []Container
	// Networks holds the project's labelled networks and every network the project names (external ones too), by name.
	// Names that matched nothing are absent; one name with several networks has the labelled or first one, and Duplicates tells.
	Networks map[string]Network
	// Volumes holds the project's labelled volumes and every volume the project names, by name.
	Volumes map[string]Volume
	// Images holds the images the project's services name and that exist locally, by the reference as the project writes it.
	Images map[string]Image
}

// State is a container's state as the engine names it.
type State string

// The engine's container states (API type container.ContainerState).
const (
	StateCreated    State = "created"
	StateRunning    State = "running"
	StatePaused     State = "paused"
	StateRestarting State = "restarting"
	StateRemoving   State = "removing"
	StateExited     State = "exited"
	StateDead       State = "dead"
)

// Health is a container's health as the engine names it; empty when it has no health check.
type Health string

// The engine's health states.
const (
	HealthNone      Health = ""
	HealthStarting  Health = "starting"
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
)

// Container is one observed container of a project.
type Container struct {
	ID     string
	Name   string // without the leading slash
	Labels map[string]string
	// Image is the reference the container was created with, ImageID what it resolved to.
	Image, ImageID string
	State          State
	Health         Health
	// ExitCode is meaningful in StateExited only.
	ExitCode int
	// Status is the engine's own sentence ("Up 3 minutes (healthy)").
	Status  string
	Command string
	Created time.Time
	// Networks maps a network's name to its ID, as the container is attached.
	Networks map[string]string
	Mounts   []Mount
	Ports    []Port
}

// Mount is one observed mount of a container.
type Mount struct {
	Type        string // bind, volume, tmpfs, image, npipe
	Name        string // the volume's name
	Source      string
	Destination string
}

// Port is one observed port of a container; HostPort is 0 when it is only exposed.
type Port struct {
	HostIP        string
	HostPort      uint16
	ContainerPort uint16
	Protocol      string
}

// Service is the name of the service that the container belongs to.
func (c Container) Service() string { return c.Labels[LabelService] }

// OneOff reports whether the container was made by `run`.
func (c Container) OneOff() bool { return c.Labels[LabelOneOff] == "True" }

// Network is one observed network.
type Network struct {
	ID, Name, Driver string
	Labels           map[string]string
	// Duplicates counts further networks of the same name (the engine allows them).
	Duplicates int
}

// Volume is one observed volume.
type Volume struct {
	Name, Driver string
	Labels       map[string]string
}

// Image is one local image.
type Image struct {
	ID      string
	Digests []string // repository digests
	// Tagged is when the reference was last pulled, built or tagged locally; zero if the engine does not know.
	Tagged   time.Time
	Platform string // os/arch[/variant]; empty if unknown
}
