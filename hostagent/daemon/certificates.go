// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// certificateFolders are where administrators of Linux hosts put certificate authorities of their own: the public ones are in the image.
var certificateFolders = []string{
	"/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors", "/etc/ca-certificates/trust-source/anchors", "/usr/share/pki/trust/anchors", "/etc/pki/trust/anchors",
}

// hostCertificates are the certificate authorities that the host trusts besides the public ones, in PEM: a company's, say, whose proxy opens TLS.
func hostCertificates(log *slog.Logger) string {
	text, err := systemCertificates()
	if err != nil {
		log.Warn("the host's certificate authorities could not be read", "error", err)
	}
	return keepAuthorities(text)
}

// readCertificates joins the certificates in folders.
func readCertificates(folders []string) string {
	var b strings.Builder
	for _, folder := range folders {
		files, _ := filepath.Glob(filepath.Join(folder, "*")) // the pattern is one
		deeper, _ := filepath.Glob(filepath.Join(folder, "*", "*"))
		for _, f := range append(files, deeper...) {
			switch filepath.Ext(f) {
			case ".crt", ".pem", ".cer", ".0":
				data, _ := os.ReadFile(f) // who may not read it does not trust it either
				b.Write(data)
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

// keepAuthorities leaves out what is no certificate of an authority, and doubles.
func keepAuthorities(text string) string {
	seen := map[string]bool{}
	var out strings.Builder
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return out.String()
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil || !cert.IsCA || seen[string(block.Bytes)] {
			continue
		}
		seen[string(block.Bytes)] = true
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
	}
}
