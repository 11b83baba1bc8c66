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

// Edit changes the machine's spec and says whether a restart is needed for it to take effect. The disk only grows; driver, architecture and image stay
// (Upgrade changes the image).
func (m *Machine) Edit(ctx context.Context, change func(*Spec) error) (restart bool, err error) {
	err = m.underLock(ctx, nil, func() error {
		if len(m.Problems) > 0 {
			return errors.Join(m.Problems...)
		}
		next := m.Spec.clone()
		if err := change(&next); err != nil {
			return err
		}
		if err := m.checkChange(next); err != nil {
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

// Upgrade moves the machine to an image (a tag, or the beginning of a digest; empty for DefaultImage). Its data stays. A machine that runs is
// restarted; if it does not start with the new image it gets the old one back.
func (m *Machine) Upgrade(ctx context.Context, image string, sink Sink) (changed bool, err error) {
	running, err := m.agentRuns(ctx)
	if err != nil {
		return false, err
	}
	old, err := m.setImage(ctx, image, sink)
	if err != nil || old == m.Spec.Image {
		return false, err
	}
	if !running {
		return true, nil
	}
	err = m.Restart(ctx, StopOptions{}, sink)
	var failed *StartError
	if !errors.As(err, &failed) {
		return true, err
	}
	sink.send(Event{Machine: m.Name, Warning: true, Text: "the new image does not start: going back to the one before"})
	_, back := m.setImage(ctx, old, sink)
	if back == nil {
		back = m.Start(ctx, sink)
	}
	return false, errors.Join(fmt.Errorf("upgrade machine %q: %w", m.Name, err), back)
}

// setImage gives the machine another image and returns the digest of the one before.
func (m *Machine) setImage(ctx context.Context, image string, sink Sink) (old string, err error) {
	if image == "" {
		image = DefaultImage
	}
	err = m.underLock(ctx, sink, func() error {
		if len(m.Problems) > 0 {
			return errors.Join(m.Problems...)
		}
		next := m.Spec.clone()
		next.Image = image
		driver, err := m.store.complete(ctx, m.Name, &next)
		if err != nil || driver == nil {
			return err
		}
		old = m.Spec.Image
		if next.Image == old {
			return nil
		}
		return m.replaceImage(ctx, next)
	})
	return old, err
}

// replaceImage writes a spec with another image. What is used is noted before it is needed, and released after it is not.
func (m *Machine) replaceImage(ctx context.Context, next Spec) error {
	images := m.store.Images
	next.Previous = m.Spec.Image
	if err := images.Use(ctx, next.Image, m.Name); err != nil {
		return fmt.Errorf("upgrade machine %q: %w", m.Name, err)
	}
	err := writeSpec(m.Dir, next)
	if err == nil {
		m.Spec = next
	}
	if err := errors.Join(err, m.releaseOthers(context.WithoutCancel(ctx))); err != nil {
		return fmt.Errorf("upgrade machine %q: %w", m.Name, err)
	}
	return nil
}

// releaseOthers takes back the use of images that the spec does not name: the ones before, and what an upgrade that was killed had noted.
func (m *Machine) releaseOthers(ctx context.Context) error {
	list, err := m.store.Images.List()
	if err != nil {
		return err
	}
	for _, image := range list {
		if image.Digest == m.Spec.Image || image.Digest == m.Spec.Previous || !slices.Contains(image.Users, m.Name) {
			continue
		}
		err = errors.Join(err, m.store.Images.Release(ctx, image.Digest, m.Name))
	}
	return err
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
	if status.Agent == nil || status.Agent.SSH == "" || status.Agent.Phase == hostagent.Stopping {
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
