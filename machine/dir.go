// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"path/filepath"
	"strings"
)

// Dir is a machine's folder. All names in it are here and in docs/machine-dir.md.
type Dir string

func (d Dir) file(name string) string { return filepath.Join(string(d), name) }

// Name is the machine's name: the folder's.
func (d Dir) Name() string { return filepath.Base(string(d)) }

// Lock is held by commands that change the machine. It lies beside the machines' folders, so that it outlives the machine: a lock that is removed with
// what it guards guards nothing.
func (d Dir) Lock() string { return filepath.Join(filepath.Dir(string(d)), locksName, d.Name()) }

// locksName is the folder with the machines' locks; tmpPrefix begins the names of folders that are being made or taken away.
const (
	locksName = ".locks"
	tmpPrefix = ".tmp-"
)

// Spec is the file with what was asked.
func (d Dir) Spec() string { return d.file("machine.yaml") }

// ID is the file with the machine's identity, 32 hexadecimal digits: its MAC address and the guest's machine-id follow from it.
func (d Dir) ID() string { return d.file("id") }

// Ports is the file with the loopback ports that the machine wishes for.
func (d Dir) Ports() string { return d.file("ports.json") }

// RunLock is held by the machine's host agent for its whole life.
func (d Dir) RunLock() string { return d.file("run.lock") }

// DataDisk is the one writable disk, raw and sparse.
func (d Dir) DataDisk() string { return d.file("data.img") }

// Seed is the disk with the settings of the current boot.
func (d Dir) Seed() string { return d.file("seed.img") }

// SSHKey is the private key that the guest lets in; SSHKey+".pub" the public one.
func (d Dir) SSHKey() string { return d.file("id_ed25519") }

// HostKey is the guest's private SSH host key, given to it by the seed.
func (d Dir) HostKey() string { return d.file("host_ed25519") }

// KnownHosts tells OpenSSH's client the guest's host key, under the name of HostKeyAlias.
func (d Dir) KnownHosts() string { return d.file("known_hosts") }

// Console is the log of the serial console.
func (d Dir) Console() string { return d.file("console.log") }

// AgentLog is the host agent's log, JSON lines.
func (d Dir) AgentLog() string { return d.file("agent.log") }

// Control is the host agent's control socket; a named pipe on Windows.
func (d Dir) Control() string { return d.endpoint("agent") }

// Docker is the engine's socket on the host; a named pipe on Windows.
func (d Dir) Docker() string { return d.endpoint("docker") }

// Network is the socket of the VM's network card.
func (d Dir) Network() string { return d.file("net.sock") }

// Monitor is QEMU's QMP socket.
func (d Dir) Monitor() string { return d.file("qmp.sock") }

// Migration is the socket over which QEMU hands out and takes back the state of its devices.
func (d Dir) Migration() string { return d.file("mem.sock") }

// Memory is the folder with the saved memory.
func (d Dir) Memory() string { return d.file("memory") }

// TLS is the folder with the certificates of the engine's TCP socket, named as docker-machine names them.
func (d Dir) TLS() string { return d.file("tls") }

// maxSocketPath is the longest path of a unix socket that every system takes: macOS has room for 104 bytes with the end mark.
const maxSocketPath = 103

// socketNames are the sockets in the folder; shares' sockets are shorter.
var socketNames = [...]string{"docker.sock", "agent.sock", "net.sock", "qmp.sock", "fs0.sock"}

// checkSockets refuses a folder whose sockets' paths are too long for the system.
func (d Dir) checkSockets() error {
	for _, name := range socketNames {
		if p := d.file(name); len(p) > maxSocketPath {
			return &PathError{Path: p, Max: maxSocketPath}
		}
	}
	return nil
}

// report is the disk on which a machine tells of its maintenance.
func (d Dir) report() string { return d.file(reportName) }

const reportName = "report.img"

// isStale says whether a name in the folder is a socket, or of maintenance, which is rubbish once nobody holds the run lock.
func isStale(name string) bool { return strings.HasSuffix(name, ".sock") || name == reportName }
