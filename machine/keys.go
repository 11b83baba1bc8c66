// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// makeKeys makes the key that logs in and the key that the guest answers with.
func makeKeys(dir Dir, name string) error {
	if _, err := makeKey(dir.SSHKey(), "dev machine "+name); err != nil {
		return err
	}
	host, err := makeKey(dir.HostKey(), "dev machine "+name+" host")
	if err != nil {
		return err
	}
	line := HostKeyAlias(name) + " " + string(ssh.MarshalAuthorizedKey(host))
	return os.WriteFile(dir.KnownHosts(), []byte(line), 0o600)
}

// HostKeyAlias is the name under which OpenSSH's client finds the guest's host key: the address is a loopback port that may change.
func HostKeyAlias(name string) string { return "dev-machine-" + name }

// makeKey writes a private key in OpenSSH's format, and the public one beside it.
func makeKey(name, comment string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment + "\n"
	err = errors.Join(os.WriteFile(name, pem.EncodeToMemory(block), 0o600), os.WriteFile(name+".pub", []byte(line), 0o644))
	return key, err
}

// Keys are a machine's SSH keys.
type Keys struct {
	// Login logs in as root, Host is what the guest answers with. HostPEM is Host as the seed carries it.
	Login, Host ssh.Signer
	HostPEM     string
}

// Keys reads the machine's SSH keys.
func (m *Machine) Keys() (Keys, error) {
	login, _, err := readKey(m.Dir.SSHKey())
	if err != nil {
		return Keys{}, &BrokenError{Name: m.Name, Err: err}
	}
	host, text, err := readKey(m.Dir.HostKey())
	if err != nil {
		return Keys{}, &BrokenError{Name: m.Name, Err: err}
	}
	return Keys{Login: login, Host: host, HostPEM: text}, nil
}

func readKey(name string) (ssh.Signer, string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, "", fmt.Errorf("read its key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("read its key %q: %w", name, err)
	}
	return signer, string(data), nil
}

// Identity is what tells a machine from all others.
type Identity struct {
	ID  string // 32 hexadecimal digits
	MAC string // of its network card
}

// Identity reads the machine's identity.
func (m *Machine) Identity() (Identity, error) {
	data, err := os.ReadFile(m.Dir.ID())
	if err != nil {
		return Identity{}, &BrokenError{Name: m.Name, Err: fmt.Errorf("read its identity: %w", err)}
	}
	id := strings.TrimSpace(string(data))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return Identity{}, &BrokenError{Name: m.Name, Err: fmt.Errorf("its identity %q is not 32 hexadecimal digits", id)}
	}
	sum := sha256.Sum256([]byte(id))
	mac := net.HardwareAddr{0x52, 0x54, 0x00, sum[0], sum[1], sum[2]} // QEMU's range of local addresses
	return Identity{ID: id, MAC: mac.String()}, nil
}
