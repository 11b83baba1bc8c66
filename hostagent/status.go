// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import "time"

// Phase is where a machine's agent is in its life.
type Phase string

// Phases, in their usual order. Degraded is Running with problems: the engine answers, something beside it does not.
const (
	Starting Phase = "starting"
	Running  Phase = "running"
	Degraded Phase = "degraded"
	Stopping Phase = "stopping"
	// Suspending: the memory is being saved. Suspended: it is, there is no VM, and the agent waits to resume it. Resuming: it is being restored.
	Suspending Phase = "suspending"
	Suspended  Phase = "suspended"
	Resuming   Phase = "resuming"
	Stopped    Phase = "stopped"
	Failed     Phase = "failed"
)

// Stage is a step of starting. Each has a deadline of its own.
type Stage string

// Stages of a start, in order.
const (
	StageProcess  Stage = "process"  // the VM's process runs
	StageLink     Stage = "link"     // the guest's agent answers
	StageEngine   Stage = "engine"   // the engine answers
	StageShares   Stage = "shares"   // the host's folders are mounted
	StageForwards Stage = "forwards" // sockets and published ports are served
)

// Status is what the agent knows now; the answer of its control socket.
type Status struct {
	Version  int       `json:"version"` // of this type: 1
	Machine  string    `json:"machine"`
	Phase    Phase     `json:"phase"`
	Stage    Stage     `json:"stage,omitempty"` // while starting, or where a start failed
	Problems []Problem `json:"problems,omitempty"`
	Started  time.Time `json:"started"`
	AgentPID int       `json:"agent_pid"` // diagnostics: liveness is the run lock
	VMPID    int       `json:"vm_pid,omitempty"`
	// Asleep: the machine is suspended because nobody used it, and wakes for the first who does.
	Asleep bool `json:"asleep,omitempty"`
	// SleepAfter is how long it has to be unused for that; 0: it never falls asleep.
	SleepAfter time.Duration `json:"sleep_after_ns,omitempty"`
	// Docker is the engine's address on this host: unix:///… or npipe:////./pipe/….
	Docker string `json:"docker,omitempty"`
	// SSH is the loopback address of the guest's SSH server, host:port.
	SSH string `json:"ssh,omitempty"`
	// Guest is the guest's address in the agent's own network; nothing on the host routes to it.
	Guest string `json:"guest,omitempty"`
	// TCP is the loopback address of the engine's TLS socket, host:port, where it is served.
	TCP     string   `json:"tcp,omitempty"`
	Engine  string   `json:"engine,omitempty"` // its version
	Ports   []Port   `json:"ports,omitempty"`
	Metrics *Metrics `json:"metrics,omitempty"`
}

// Problem is something that does not work and what to do about it.
type Problem struct {
	Code string `json:"code"` // stable, for scripts: port-taken, share-unavailable, …
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// Port is a published port as served on the host.
type Port struct {
	Protocol  string `json:"protocol"` // tcp, udp, or sctp, which is never served
	Host      string `json:"host"`     // address and port on the host
	Guest     string `json:"guest"`    // address and port in the guest
	Container string `json:"container,omitempty"`
	Problem   string `json:"problem,omitempty"` // why it is not served
}

// Metrics are the agent's own figures.
type Metrics struct {
	MemoryBytes uint64        `json:"memory_bytes"` // resident
	CPU         time.Duration `json:"cpu_ns"`       // user and system, since the start
	Connections int           `json:"connections"`  // open forwarded ones
	Received    uint64        `json:"received_bytes"`
	Sent        uint64        `json:"sent_bytes"`
	ClockOffset time.Duration `json:"clock_offset_ns"` // guest minus host, at the last look
}

// Event is one line of the event stream: what changed, and the status after it where that helps.
type Event struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"` // phase, stage, problem, port, log
	Text    string    `json:"text,omitempty"`
	Phase   Phase     `json:"phase,omitempty"`
	Stage   Stage     `json:"stage,omitempty"`
	Port    *Port     `json:"port,omitempty"`
	Problem *Problem  `json:"problem,omitempty"`
}
