// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// guestPackage is the guest program's package, below the module's root.
const guestPackage = "./vmimage/guest"

// NoGuestError says that there is no guest program to put into an image.
type NoGuestError struct{ Err error }

func (e *NoGuestError) Error() string { return fmt.Sprintf("make the guest program: %v", e.Err) }

func (e *NoGuestError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *NoGuestError) Hint() string {
	return "build images in dev's source tree with Go installed, or name a guest program with --guest"
}

// CompileGuest builds the guest program for an architecture from dev's source tree at dir (or above) into the file out. The same sources and Go give
// the same bytes wherever that happens.
func CompileGuest(ctx context.Context, dir, arch, out string) error {
	root, err := sourceTree(dir)
	if err != nil {
		return &NoGuestError{Err: err}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out, guestPackage)
	cmd.Dir = root
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "GOOS", "GOARCH", "GOFLAGS", "CGO_ENABLED", "GOAMD64", "GOARM64", "GOEXPERIMENT":
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0")
	var talk bytes.Buffer
	cmd.Stderr = &talk
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return &NoGuestError{Err: fmt.Errorf("%w: %s", err, strings.TrimSpace(talk.String()))}
	}
	return nil
}

// sourceTree finds the root of dev's source tree from a folder in it.
func sourceTree(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(guestPackage), "main_linux.go")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("this is not dev's source tree")
		}
		dir = parent
	}
}
