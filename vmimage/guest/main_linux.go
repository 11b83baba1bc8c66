// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command guest is the one program of our own inside a machine: PID 1 (package boot), the agent that the host talks to (package agent), and
// what the kernel and users call by the names modprobe, poweroff and reboot.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/agent"
	"github.com/seed71221737/dev/vmimage/guest/boot"
	"github.com/seed71221737/dev/vmimage/guest/proto"
	"github.com/seed71221737/dev/vmimage/guest/share"
)

func main() {
	if err := run(filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dev-guest:", err)
		if os.Getpid() == 1 {
			unix.Sync() // the kernel panics now, and starts the machine again
		}
		os.Exit(1)
	}
}

// run does what the name or the first argument says.
func run(name string, args []string) error {
	if name == "dev-guest" && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "modprobe":
		return boot.Modprobe(args)
	case "poweroff":
		return unix.Kill(1, boot.SignalPowerOff)
	case "reboot":
		return unix.Kill(1, boot.SignalReboot)
	case "agent":
		return runAgent()
	case "init":
		if os.Getpid() != 1 {
			return fmt.Errorf("only the kernel starts %q", name)
		}
		if _, err := os.Stat("/usr/sbin/dev-guest"); err == nil {
			return boot.Main()
		}
		return boot.Early()
	}
	return fmt.Errorf("unknown command %q: modprobe, poweroff and reboot are there", name)
}

// identity reads what PID 1, or a restored machine's new seed, has written: the host key, the keys that may log in, and the environment of sessions.
func identity() (key, keys []byte, env []string, err error) {
	if key, err = os.ReadFile(boot.HostKeyFile); err != nil {
		return nil, nil, nil, fmt.Errorf("read the machine's host key: %w", err)
	}
	if keys, err = os.ReadFile(boot.AuthorizedKeysFile); err != nil {
		return nil, nil, nil, fmt.Errorf("read the keys that may log in: %w", err)
	}
	env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh", "DOCKER_HOST=unix:///run/docker.sock"}
	if proxy, err := os.ReadFile(boot.ProxyFile); err == nil {
		env = append(env, strings.Fields(string(proxy))...)
	}
	return key, keys, env, nil
}

// runAgent serves the host until it is told to end.
func runAgent() error {
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	key, keys, env, err := identity()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	shares := &share.Manager{MakeTarget: boot.MakeTarget, Log: log, Replaced: func(devices []string, target string) { replaced(log, devices, target) }}
	defer context.AfterFunc(told, func() {
		shares.Settle() // over connections that end now
		end()
	})()
	s := &agent.Server{
		HostKey: key, AuthorizedKeys: keys, Shell: "/bin/sh", Env: env, AgentSocket: "/run/host-services/ssh-auth.sock",
		Log: log, Settle: shares.Settle,
		Control: &agent.Control{
			Program: "dev-guest", StatusFile: boot.StatusFile, LogDir: "/var/log/dev", DataDir: "/var", Docker: "/run/docker.sock",
			Mount: boot.MountShare, Grow: boot.GrowData,
			Freeze: func() error {
				shares.Hold()
				return agent.BeforeSave()
			},
			Power: func(reboot bool) error {
				if reboot {
					return unix.Kill(1, boot.SignalReboot)
				}
				return unix.Kill(1, boot.SignalPowerOff)
			},
		},
	}
	s.Control.Thaw = func(p proto.AfterRestore) (proto.AfterRestored, error) {
		return agent.AfterRestore(p, func(seed *proto.Seed) ([]string, error) {
			warnings, err := boot.Renew(seed)
			key, keys, env, readErr := identity()
			if readErr != nil {
				return warnings, errors.Join(err, readErr)
			}
			return warnings, errors.Join(err, s.Renew(key, keys, env))
		})
	}
	card, err := boot.Card(ctx)
	if err != nil {
		s.Log.Warn("containers may take the places of the host's connections", "error", err)
	}
	l, err := agent.Listen(ctx, card, 22)
	if err != nil {
		return fmt.Errorf("listen for the host: %w", err)
	}
	listeners := []net.Listener{l}
	if l, err := vsock.Listen(22, nil); err == nil { // most machines have no such device
		listeners = append(listeners, l)
	}
	fast, err := agent.Listen(ctx, card, proto.FastPort)
	if err != nil {
		return fmt.Errorf("listen for the host: %w", err)
	}
	f := &agent.Fast{
		SecretFile: boot.LinkSecretFile, Log: s.Log,
		Services: map[string]func(context.Context, net.Conn, string){
			proto.FastDocker: agent.Settled(shares.Settle, agent.FastSocket("/run/docker.sock")), proto.FastShare: shares.Serve, proto.FastControl: agent.FastControl(s.Control),
		},
	}
	failed := make(chan error, 1)
	go func() {
		defer end()
		failed <- f.Serve(ctx, fast)
	}()
	err = s.Serve(ctx, listeners...)
	end()
	return errors.Join(err, <-failed)
}

// replaced puts a share also into containers that have it from an agent that was killed.
func replaced(log *slog.Logger, devices []string, target string) {
	for _, device := range devices {
		done, err := agent.ReplaceMounts(proto.Replace{Device: device, Target: target})
		log.Warn("a share of an agent that ended was mounted again", "share", target, "repaired", done.Repaired, "stale", done.Stale, "error", err)
	}
}
