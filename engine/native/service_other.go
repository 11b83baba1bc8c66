// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

package native

import (
	"context"
	"io"
	"log/slog"
	"runtime"
)

func unsupported() error { return &UnsupportedError{OS: runtime.GOOS} }

// ServeOptions say how to run a supervisor.
type ServeOptions struct {
	Paths  Paths
	Source Source
	Notify string
	Log    *slog.Logger
}

// Serve is the supervisor; it runs only on Linux.
func Serve(context.Context, ServeOptions) error { return unsupported() }

// Start fails: the engine runs natively only on Linux.
func (s *Service) Start(context.Context, Settings) (bool, error) { return false, unsupported() }

// Ensure fails: the engine runs natively only on Linux.
func (s *Service) Ensure(context.Context, Settings) error { return unsupported() }

// Stop fails: the engine runs natively only on Linux.
func (s *Service) Stop(context.Context, StopOptions) (bool, error) { return false, unsupported() }

// Status fails: the engine runs natively only on Linux.
func (s *Service) Status(context.Context) (Status, error) { return Status{}, unsupported() }

// Logs fails: the engine runs natively only on Linux.
func (s *Service) Logs(context.Context, io.Writer, LogOptions) error { return unsupported() }

// Uninstall fails: the engine runs natively only on Linux.
func (s *Service) Uninstall(context.Context, UninstallOptions) error { return unsupported() }

// Outdated says that the engine that runs is of another bundle.
func (s *Service) Outdated(context.Context) (bool, error) { return false, unsupported() }

// Orphans is the number of containers that run although the engine does not.
func (s *Service) Orphans() int { return 0 }

// SystemdRunning says that systemd is the system's service manager.
func SystemdRunning() bool { return false }
