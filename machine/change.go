// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
)

// ChangeError says what cannot be changed on a machine.
type ChangeError struct{ Name, Field, Why string }

func (e *ChangeError) Error() string {
	return fmt.Sprintf("edit machine %q: %s cannot be changed: %s", e.Name, e.Field, e.Why)
}

// Edit changes the machine's spec and says whether a restart is needed for it to take effect. The disk only grows (Shrink makes it smaller);
// driver, architecture and image stay (Upgrade changes the image).
func (m *Machine) Edit(ctx context.Context, change func(*Spec) error) (restart bool, err error) {
	err = m.underLock(ctx, nil, func() error {
		if len(m.Problems) > 0 {
			return errors.Join(m.Problems...)
		}
		next := m.Spec.clone()
		if err := change(&next); err != nil {
			return err
		}
		if err := errors.Join(m.checkChange(next), m.checkSuspended(next)); err != nil {
			return err
		}
		if err := m.store.accept(ctx, m.Name, m.store.Drivers[next.Driver], next); err != nil {
			return err
		}
		if err := writeSpec(m.Dir, next); err != nil {
			return err
		}
		m.Spec = next
		restart, err = m.agentRuns(ctx)
		return err
	})
	return restart, err
}

// checkSuspended refuses what would cost a suspended machine all that runs in it.
func (m *Machine) checkSuspended(next Spec) error {
	state := m.Saved()
	if state == nil || !state.Suspended {
		return nil
	}
	was, err := SpecFacts(m.Spec)
	if err != nil {
		return err
	}
	facts, err := SpecFacts(next)
	if err != nil {
		return err
	}
	if slices.Equal(was, facts) && next.DiskMiB == m.Spec.DiskMiB && len(next.Shares) == len(m.Spec.Shares) {
		return nil
	}
	return &ChangeError{m.Name, "a suspended machine", fmt.Sprintf("what runs in it would be lost: first `dev machine stop %s`, or resume it", m.Name)}
}

func (m *Machine) checkChange(next Spec) error {
	old := m.Spec
	switch {
	case next.DiskMiB < old.DiskMiB:
		return &ChangeError{m.Name, "the disk", fmt.Sprintf("%d MiB is less than its %d MiB, and data could be lost", next.DiskMiB, old.DiskMiB)}
	case next.Driver != old.Driver:
		return &ChangeError{m.Name, "the driver", "its disk is this driver's"}
	case next.Arch != old.Arch:
		return &ChangeError{m.Name, "the architecture", "its data is of this architecture"}
	case next.Image != old.Image || next.Previous != old.Previous || next.DataOldest != old.DataOldest:
		return &ChangeError{m.Name, "the image", "use `dev machine upgrade`"}
	}
	return nil
}

// RegenerateOptions say which certificates are made anew.
type RegenerateOptions struct {
	// Force makes the server's certificate anew though it is good; ClientToo the authority and the client's certificate as well.
	Force, ClientToo bool
}

// RegenerateCertificates makes certificates anew that are missing, about to expire, or asked for. The agent takes the server's for the next
// connection. It says whether any was made.
func (m *Machine) RegenerateCertificates(ctx context.Context, o RegenerateOptions) (changed bool, err error) {
	err = m.underLock(ctx, nil, func() error {
		changed, err = m.certificates(certificateRequest{CA: o.ClientToo, Client: o.ClientToo, Server: o.Force})
		return err
	})
	return changed, err
}

// RenewCertificates is for the machine's agent: it makes what is missing or about to expire.
func (m *Machine) RenewCertificates() (changed bool, err error) {
	return m.certificates(certificateRequest{})
}

func (m *Machine) certificates(r certificateRequest) (bool, error) {
	r.Name, r.SANs = m.Name, m.Spec.tlsNames()
	return ensureCertificates(m.Dir, r)
}

// Provision brings a machine in line with its spec: certificates are renewed, and a machine that runs is restarted, which writes its seed anew.
func (m *Machine) Provision(ctx context.Context, o StopOptions, sink Sink) error {
	if _, err := m.RegenerateCertificates(ctx, RegenerateOptions{}); err != nil {
		return err
	}
	runs, err := m.agentRuns(ctx)
	if err != nil {
		return err
	}
	if !runs {
		return m.Start(ctx, sink)
	}
	return m.Restart(ctx, o, sink)
}

// SSHTarget is how to reach the guest's SSH server.
type SSHTarget struct {
	Address string // host:port on loopback
	User    string
	Key     ssh.Signer
	HostKey ssh.PublicKey
	// KeyFile, KnownHosts and HostKeyAlias are for OpenSSH's client.
	KeyFile, KnownHosts, HostKeyAlias string
}

// SSHTarget asks the agent where the guest's SSH server is; a *NotRunningError if the machine is not up.
func (m *Machine) SSHTarget(ctx context.Context) (SSHTarget, error) {
	status := m.Status(ctx)
	if status.Agent == nil || status.Agent.SSH == "" || status.Agent.Phase == hostagent.Stopping || status.Phase == PhaseSuspended {
		return SSHTarget{}, &NotRunningError{Name: m.Name, Phase: status.Phase}
	}
	keys, err := m.Keys()
	if err != nil {
		return SSHTarget{}, err
	}
	return SSHTarget{
		Address: status.Agent.SSH, User: "root", Key: keys.Login, HostKey: keys.Host.PublicKey(),
		KeyFile: m.Dir.SSHKey(), KnownHosts: m.Dir.KnownHosts(), HostKeyAlias: HostKeyAlias(m.Name),
	}, nil
}
