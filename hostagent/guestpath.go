// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"fmt"
	"path"
	"strings"
)

// GuestPath is where a host's absolute path is in the guest: unchanged, except on Windows (goos "windows"), where C:\Users\x is /c/Users/x. Paths
// in Windows' other notations (\\?\C:\…, forward slashes, an upper or lower case drive) map to the same place; network paths (\\server\share)
// and paths without a drive have none.
func GuestPath(goos, host string) (string, error) {
	if goos != "windows" {
		if !path.IsAbs(host) {
			return "", fmt.Errorf("share %q: the path is not absolute", host)
		}
		return path.Clean(host), nil
	}
	p := strings.ReplaceAll(host, `\`, "/")
	for _, prefix := range []string{"//?/", "//./"} {
		p = strings.TrimPrefix(p, prefix)
	}
	switch {
	case strings.HasPrefix(p, "//"), strings.HasPrefix(strings.ToUpper(p), "UNC/"):
		return "", fmt.Errorf("share %q: a network path has no place in the machine: give it a drive letter, or copy what is needed", host)
	case len(p) < 3 || !isLetter(p[0]) || p[1] != ':' || p[2] != '/':
		return "", fmt.Errorf("share %q: the path is not absolute: it starts with a drive, as C:\\Users does", host)
	}
	// Cleaned below the drive: ".." does not lead to another one.
	return "/" + strings.ToLower(p[:1]) + strings.TrimSuffix(path.Clean(p[2:]), "/"), nil
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
