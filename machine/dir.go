// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import "path/filepath"

// Dir is a machine's folder. All names in it are here and in docs/machine-dir.md.
type Dir string

func (d Dir) file(name string) string { return filepath.Join(string(d), name) }

// Name is the machine's name: the folder's.
func (d Dir) Name() string { return filepath.Base(string(d)) }

// Spec is the file with what was asked.
func (d Dir) Spec() string { return d.file("machine.yaml") }

// Lock is held by commands that change the machine.
func (d Dir) Lock() string { return d.file("lock") }

// RunLock is held by the machine's host agent for its whole life.
func (d Dir) RunLock() string { return d.file("run.lock") }

// DataDisk is the one writable disk, raw and sparse.
func (d Dir) DataDisk() string { return d.file("data.img") }

// Seed is the disk with the settings of the current boot.
func (d Dir) Seed() string { return d.file("seed.img") }

// SSHKey is the private key that the guest lets in; SSHKey+".pub" the public one. HostKey is the key that the guest answers with.
func (d Dir) SSHKey() string { return d.file("id_ed25519") }

// HostKey is the guest's private SSH host key, given to it by the seed.
func (d Dir) HostKey() string { return d.file("host_ed25519") }

// Console is the log of the serial console, AgentLog that of the host agent.
func (d Dir) Console() string { return d.file("console.log") }

// AgentLog is the host agent's log, JSON lines.
func (d Dir) AgentLog() string { return d.file("agent.log") }

// Control is the host agent's control socket.
func (d Dir) Control() string { return d.file("agent.sock") }

// Docker is the engine's socket on the host; a named pipe takes its place on Windows.
func (d Dir) Docker() string { return d.file("docker.sock") }

// Network is the socket of the VM's network card.
func (d Dir) Network() string { return d.file("net.sock") }

// Monitor is QEMU's QMP socket.
func (d Dir) Monitor() string { return d.file("qmp.sock") }

// TLS is the folder with the certificates of the engine's TCP socket, named as docker-machine names them.
func (d Dir) TLS() string { return d.file("tls") }
