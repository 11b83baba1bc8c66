// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
)

// endpoint is the named pipe on which a service of the machine listens. Pipes are the whole system's: the folder's digest keeps homes apart.
func (d Dir) endpoint(service string) string {
	folder := string(d)
	if abs, err := filepath.Abs(folder); err == nil {
		folder = abs
	}
	sum := sha256.Sum256([]byte(strings.ToLower(folder)))
	return `\\.\pipe\dev-` + d.Name() + "-" + hex.EncodeToString(sum[:4]) + "-" + service
}
