// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// unitDir is where an administrator's units are.
const unitDir = "/etc/systemd/system"

// SystemdRunning says that systemd is the system's service manager.
func SystemdRunning() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// startUnit installs the unit, lets it start at boot, and starts it now. It
// returns when the engine answers, because the unit tells systemd so.
func (s *Service) startUnit(ctx context.Context) error {
	name := filepath.Join(s.unitDir(), unitName)
	text := []byte(unitText(s.Supervisor, s.Env))
	old, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("install systemd unit: %w", err)
	}
	if !bytes.Equal(old, text) {
		if err := atomicfile.Write(name, text, 0o644); err != nil {
			return fmt.Errorf("install systemd unit: %w", err)
		}
		if err := systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
	}
	if err := systemctl(ctx, "enable", "--quiet", unitName); err != nil {
		return err
	}
	if err := systemctl(ctx, "start", unitName); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endDeadline)
		defer cancel()
		// systemd would try again and again: never half-started
		return errors.Join(s.failure(err), systemctl(stopCtx, "stop", unitName))
	}
	return nil
}

// removeUnit removes the unit if there is one.
func (s *Service) removeUnit(ctx context.Context) error {
	name := filepath.Join(s.unitDir(), unitName)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := systemctl(ctx, "disable", "--quiet", unitName); err != nil {
		return err
	}
	if err := remove(name); err != nil {
		return fmt.Errorf("remove systemd unit: %w", err)
	}
	return systemctl(ctx, "daemon-reload")
}

func (s *Service) unitDir() string {
	if s.UnitDir != "" {
		return s.UnitDir
	}
	return unitDir
}

// systemctl runs systemctl; an interrupt does not reach it through the
// terminal but through ctx.
func systemctl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("systemctl %s: %w: %s", args[0], err, line)
	}
	return nil
}
