// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"

	"github.com/mitchellh/go-homedir"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine/autostart"
)

// autostart is where this system keeps what starts when its user logs in.
func (m *machines) autostart() (autostart.System, error) {
	home, err := homedir.Expand("~")
	if err != nil {
		return autostart.System{}, fmt.Errorf("find the home folder: %w", err)
	}
	return autostart.System{OS: runtime.GOOS, Home: home, ConfigHome: m.getenv("XDG_CONFIG_HOME")}, nil
}

func newMachineAutostartCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:   "autostart on|off [MACHINE]",
		Short: "Start a machine when you log in, or no more",
		Long: `Start a machine when you log in, or no more: by a systemd user unit on Linux, a
launchd agent on macOS, a task of the Task Scheduler on Windows.`,
		Args: takes(1, 2, "on|off"),
		ValidArgsFunction: func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp
			}
			return m.complete(c, args, prefix)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "on" && args[0] != "off" {
				return usagef("%q is neither on nor off", args[0])
			}
			one, err := m.one(args[1:])
			if err != nil {
				return err
			}
			system, err := m.autostart()
			if err != nil {
				return err
			}
			if args[0] == "off" {
				o, err := system.Disable(c.Context(), one.Name)
				m.noteAutostart(o, fmt.Sprintf("Machine %q no longer starts by itself.", one.Name))
				return err
			}
			entry, err := m.autostartEntry(one.Name)
			if err != nil {
				return err
			}
			o, err := system.Enable(c.Context(), entry)
			if err != nil {
				return err
			}
			m.noteAutostart(o, fmt.Sprintf("Machine %q starts when you log in: %s", one.Name, o.Where))
			return nil
		},
	}
}

func (m *machines) noteAutostart(o autostart.Outcome, text string) {
	if o.Note != "" {
		m.warn(o.Note)
	}
	m.say(text)
}

// autostartEntry is the command that starts a machine, with this program and this folder of machines.
func (m *machines) autostartEntry(name string) (autostart.Entry, error) {
	exe, err := os.Executable()
	if err != nil {
		return autostart.Entry{}, fmt.Errorf("find this program: %w", err)
	}
	dir, err := m.storeDir()
	if err != nil {
		return autostart.Entry{}, err
	}
	e := autostart.Entry{Machine: name, Command: []string{exe, "machine", "--storage-path", filepath.Dir(dir), "start", name}}
	if home := m.getenv("DEV_HOME"); home != "" {
		e.Env = append(e.Env, "DEV_HOME="+home)
	}
	if u, err := user.Current(); err == nil {
		e.User = u.Username
	}
	return e, nil
}
