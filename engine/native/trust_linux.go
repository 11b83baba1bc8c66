// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// hostTrust are the files in which distributions keep the certificates they
// trust, as Go programs look for them.
var hostTrust = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// writeTrust writes the certificates the components trust: the host's, and the
// extra files that the user names.
func writeTrust(name string, extra []string) error {
	var all bytes.Buffer
	for _, file := range hostTrust {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the host's certificates: %w", err)
		}
		all.Write(data)
		break
	}
	for _, file := range extra {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read engine.ca-certificates: %w", err)
		}
		if err := checkCertificates(data); err != nil {
			return fmt.Errorf("read engine.ca-certificates: %q: %w", file, err)
		}
		all.WriteByte('\n')
		all.Write(data)
	}
	return writeVolatile(name, all.Bytes(), 0o644)
}

// checkCertificates refuses a file that a Go program would silently skip.
func checkCertificates(data []byte) error {
	found := false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return errors.New("it holds no certificate in PEM form")
	}
	return nil
}
