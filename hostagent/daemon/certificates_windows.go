// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// systemCertificates reads the store of trusted roots.
func systemCertificates() (string, error) {
	name, err := windows.UTF16PtrFromString("ROOT")
	if err != nil {
		return "", err
	}
	store, err := windows.CertOpenSystemStore(0, name)
	if err != nil {
		return "", fmt.Errorf("open the store of trusted roots: %w", err)
	}
	var out strings.Builder
	var c *windows.CertContext
	for {
		c, err = windows.CertEnumCertificatesInStore(store, c)
		if err != nil || c == nil {
			break
		}
		der := unsafe.Slice(c.EncodedCert, c.Length)
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	if errors.Is(err, windows.Errno(windows.CRYPT_E_NOT_FOUND)) {
		err = nil // the end
	}
	return out.String(), errors.Join(err, windows.CertCloseStore(store, 0))
}
