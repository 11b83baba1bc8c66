// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// handshake connects the client's certificate with the server's, as docker-machine's files are used, at a time.
func handshake(t *testing.T, client, server Dir, name string, at time.Time) error {
	t.Helper()
	pool := func(d Dir) *x509.CertPool {
		data, err := os.ReadFile(filepath.Join(d.TLS(), caName))
		if err != nil {
			t.Fatal(err)
		}
		p := x509.NewCertPool()
		p.AppendCertsFromPEM(data)
		return p
	}
	pairOf := func(d Dir, cert, key string) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(filepath.Join(d.TLS(), cert), filepath.Join(d.TLS(), key))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	now := func() time.Time { return at }
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(b, &tls.Config{Certificates: pairOf(server, serverName, serverKeyName), ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(server), Time: now})
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		b.Close()
		served <- err
	}()
	c := tls.Client(a, &tls.Config{Certificates: pairOf(client, clientName, clientKeyName), RootCAs: pool(client), ServerName: name, Time: now})
	_, err := c.Read(make([]byte, 1)) // the server's refusal of a client comes after the handshake
	a.Close()
	<-served
	return err
}

func TestCertificates(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	dir, other := Dir(t.TempDir()), Dir(t.TempDir())
	request := certificateRequest{Name: "my.machine", SANs: []string{"dev.example", "192.0.2.1"}, Now: now}
	for _, d := range []Dir{dir, other} {
		if changed, err := ensureCertificates(d, request); err != nil || !changed {
			t.Fatal(changed, err)
		}
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "my-machine", "dev.example", "192.0.2.1"} {
		if err := handshake(t, dir, dir, name, now); err != nil {
			t.Errorf("as %q: %v", name, err)
		}
	}
	if err := handshake(t, dir, dir, "192.168.127.2", now); err == nil {
		t.Error("the certificate is for an address that may change")
	}
	if err := handshake(t, other, dir, "localhost", now); err == nil {
		t.Error("another machine's certificate is let in")
	}
	if runtime.GOOS != "windows" {
		for _, key := range []string{caKeyName, clientKeyName, serverKeyName} {
			if info, err := os.Stat(filepath.Join(dir.TLS(), key)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", key, info.Mode(), err)
			}
		}
	}
}

// TestCertificatesRotate: what is about to expire is made anew, in time and not before, and old copies of the authority stay good.
func TestCertificatesRotate(t *testing.T) {
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	dir := Dir(t.TempDir())
	at := begin
	read := func() (files [3]string) {
		for i, name := range []string{caName, serverName, clientName} {
			data, err := os.ReadFile(filepath.Join(dir.TLS(), name))
			if err != nil {
				t.Fatal(err)
			}
			files[i] = string(data)
		}
		return files
	}
	ensure := func(r certificateRequest) bool {
		r.Name, r.Now = "m", at
		changed, err := ensureCertificates(dir, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := handshake(t, dir, dir, "localhost", at); err != nil {
			t.Errorf("at %s: %v", at.Format(time.DateOnly), err)
		}
		return changed
	}
	ensure(certificateRequest{})
	first := read()
	if at = begin.Add(200 * day); ensure(certificateRequest{}) || read() != first {
		t.Error("certificates were made anew long before they expire")
	}
	if at = begin.Add(300 * day); !ensure(certificateRequest{}) {
		t.Error("certificates that expire in three months were kept")
	}
	second := read()
	if second[0] != first[0] || second[1] == first[1] || second[2] == first[2] {
		t.Error("not the two certificates were made anew, and only they")
	}
	if at = begin.Add(9 * 365 * day); !ensure(certificateRequest{}) || read()[0] == first[0] {
		t.Error("an authority that expires in a year was kept")
	}
	third := read()
	if !ensure(certificateRequest{Server: true}) || read()[0] != third[0] || read()[1] == third[1] || read()[2] != third[2] {
		t.Error("not the server's certificate was made anew, and only it")
	}
	if !ensure(certificateRequest{SANs: []string{"new.example"}}) {
		t.Error("a new name did not make a new certificate")
	}
	// A clock that was years ahead when they were made.
	if at = begin; !ensure(certificateRequest{}) {
		t.Error("certificates of the future were kept")
	}
	// What a crash or a hand left.
	for _, name := range []string{caName, caKeyName, serverKeyName, clientName} {
		if err := os.WriteFile(filepath.Join(dir.TLS(), name), []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !ensure(certificateRequest{}) {
			t.Errorf("a damaged %s was kept", name)
		}
	}
}
