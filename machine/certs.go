// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Names in the folder of certificates, docker-machine's.
const (
	caName, caKeyName         = "ca.pem", "ca-key.pem"
	clientName, clientKeyName = "cert.pem", "key.pem"
	serverName, serverKeyName = "server.pem", "server-key.pem"
)

// Lifetimes. A certificate is made anew when a third of its life is left; the authority lives long because programs keep copies of it.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 397 * 24 * time.Hour
	// backdate is for a guest or a program whose clock is behind.
	backdate = 24 * time.Hour
)

// certificateRequest says what certificates have to be there.
type certificateRequest struct {
	Name string
	// SANs are further names and addresses of the server, besides those that never change: loopback and the machine's name.
	SANs []string
	Now  time.Time // zero: now
	// Server, Client and CA ask for new ones though the old are good.
	CA, Client, Server bool
}

func (s Spec) tlsNames() []string {
	return strings.FieldsFunc(s.Options[OptionTLSNames], func(r rune) bool { return r == ',' || r == ' ' })
}

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ensureCertificates makes the certificates that are missing, damaged, about to expire, or asked for anew, and says whether it made any.
func ensureCertificates(dir Dir, r certificateRequest) (changed bool, err error) {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	folder := dir.TLS()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return false, fmt.Errorf("make the folder of certificates: %w", err)
	}
	ca, err := readPair(folder, caName, caKeyName)
	if err != nil || r.CA || r.expires(ca.cert) {
		if ca, err = makePair(folder, caName, caKeyName, caTemplate(r), nil); err != nil {
			return false, err
		}
		r.Client, r.Server, changed = true, true, true
	}
	made, err := r.ensureLeaf(folder, serverName, serverKeyName, r.Server, serverTemplate(r), ca)
	if err != nil {
		return false, err
	}
	changed = changed || made
	made, err = r.ensureLeaf(folder, clientName, clientKeyName, r.Client, clientTemplate(r), ca)
	return changed || made, err
}

// ensureLeaf makes one of the authority's certificates if it has to.
func (r certificateRequest) ensureLeaf(folder, name, keyName string, anew bool, template *x509.Certificate, ca *pair) (bool, error) {
	p, err := readPair(folder, name, keyName)
	if err == nil && !anew && !r.expires(p.cert) && p.cert.CheckSignatureFrom(ca.cert) == nil && sameNames(p.cert, template) {
		return false, nil
	}
	_, err = makePair(folder, name, keyName, template, ca)
	return err == nil, err
}

// expires says whether less than a third of a certificate's life is left, or its life has not begun on this host's clock.
func (r certificateRequest) expires(c *x509.Certificate) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	return r.Now.Before(c.NotBefore) || r.Now.After(c.NotAfter.Add(-life/3))
}

func sameNames(a, b *x509.Certificate) bool {
	return slices.Equal(a.DNSNames, b.DNSNames) && slices.EqualFunc(a.IPAddresses, b.IPAddresses, func(x, y net.IP) bool { return x.Equal(y) })
}

func template(r certificateRequest, role string, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"dev machine " + r.Name}, CommonName: role},
		NotBefore: r.Now.Add(-backdate), NotAfter: r.Now.Add(life), BasicConstraintsValid: true,
	}
}

func caTemplate(r certificateRequest) *x509.Certificate {
	t := template(r, "dev machine "+r.Name+" authority", caLife)
	t.IsCA, t.MaxPathLenZero = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t
}

// serverTemplate names the server by what never changes: published on loopback, under the machine's name. Addresses that a lease may change are not in it.
func serverTemplate(r certificateRequest) *x509.Certificate {
	t := template(r, r.Name, leafLife)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.DNSNames = []string{"localhost", hostname(r.Name), HostKeyAlias(hostname(r.Name)), "host.docker.internal"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
	for _, name := range r.SANs {
		if ip := net.ParseIP(name); ip != nil {
			if four := ip.To4(); four != nil {
				ip = four
			}
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return t
}

func clientTemplate(r certificateRequest) *x509.Certificate {
	t := template(r, "dev", leafLife)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return t
}

// readPair reads a certificate and its key, which must belong together.
func readPair(folder, name, keyName string) (*pair, error) {
	both, err := tls.LoadX509KeyPair(filepath.Join(folder, name), filepath.Join(folder, keyName))
	if err != nil {
		return nil, fmt.Errorf("read certificate %q: %w", name, err)
	}
	key, ok := both.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read certificate %q: its key cannot sign", name)
	}
	return &pair{both.Leaf, key}, nil
}

// makePair makes a certificate, signed by the authority or by itself, and writes it and its key. The key comes first: a certificate
// without its key is made again.
func makePair(folder, name, keyName string, t *x509.Certificate, ca *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate %q: %w", name, err)
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, fmt.Errorf("make certificate %q: %w", name, err)
	}
	parent, signer := t, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("make certificate %q: %w", name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make certificate %q: %w", name, err)
	}
	err = errors.Join(
		writePEM(filepath.Join(folder, keyName), "PRIVATE KEY", keyDER, 0o600),
		writePEM(filepath.Join(folder, name), "CERTIFICATE", der, 0o644),
	)
	if err != nil {
		return nil, fmt.Errorf("write certificate %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	return &pair{cert, key}, err
}

func writePEM(name, kind string, der []byte, mode os.FileMode) error {
	return atomicfile.Write(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// CertificateExpiry is when the first of the machine's certificates expires.
func (m *Machine) CertificateExpiry() (time.Time, error) {
	var first time.Time
	for _, names := range [][2]string{{caName, caKeyName}, {serverName, serverKeyName}, {clientName, clientKeyName}} {
		p, err := readPair(m.Dir.TLS(), names[0], names[1])
		if err != nil {
			return time.Time{}, &BrokenError{Name: m.Name, Err: err}
		}
		if first.IsZero() || p.cert.NotAfter.Before(first) {
			first = p.cert.NotAfter
		}
	}
	return first, nil
}
