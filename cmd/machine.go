// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Groups of the machine commands in the help.
const (
	groupMachineLife = "machine-life"
	groupMachineUse  = "machine-use"
	groupMachineLook = "machine-look"
	groupMachineKeep = "machine-keep"
)

// machineNames are names of the program under which it is `dev machine`.
var machineNames = []string{"docker-machine", "machine"}

// newMachineCommand makes the commands of machines: the virtual machines that dev runs the engine in where it does not run natively.
func newMachineCommand(a *app) *cobra.Command {
	c := a.machines().command("machine")
	c.GroupID = groupEngine
	return c
}

// machineTree makes the program `dev machine`: all of docker-machine's commands, and ours. It is nil if the program has another name, or calls
// itself for something else.
func (a *app) machineTree(args []string) *cobra.Command {
	name := strings.TrimSuffix(strings.ToLower(filepath.Base(a.program)), ".exe")
	if name != machineNames[0] && name != machineNames[1] || len(args) > 0 && (args[0] == "hostagent" || args[0] == "machine" || args[0] == "engine") {
		return nil
	}
	m := a.machines()
	m.words = []string{name}
	c := m.command(name)
	c.SilenceUsage, c.SilenceErrors = true, true
	c.Version = Version
	c.PersistentFlags().BoolVarP(&a.debug, "debug", "D", isTrue(a.getenv("MACHINE_DEBUG")), "tell what happens inside, on stderr")
	c.SetFlagErrorFunc(flagError)
	c.SetUsageFunc(writeUsage)
	return c
}

// command is the tree of machine commands under a name.
func (m *machines) command(name string) *cobra.Command {
	c := &cobra.Command{
		Use:   name + " [OPTIONS] COMMAND",
		Short: "Make, start and look after virtual machines that run the engine",
		Long: `A machine is a virtual machine that runs the engine: for systems where it does not
run natively, and to keep things apart. Its engine answers at a socket on this
host, what its containers publish appears on this host, and your home folder is
there under the same path. The commands are docker-machine's, and more.`,
		Example: `  dev machine create                  make the machine default and start it
  dev machine use default             … and have dev up use it
  eval $(dev machine env)             … or docker and everything else, in this terminal
  dev machine ls                      what there is, and how it is
  dev machine stop                    stop it; all data stays`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return c.Help()
		},
	}
	m.addGlobals(c)
	c.AddGroup(
		&cobra.Group{ID: groupMachineLife, Title: "Make, start and stop:"}, &cobra.Group{ID: groupMachineUse, Title: "Use:"},
		&cobra.Group{ID: groupMachineLook, Title: "See what is there:"}, &cobra.Group{ID: groupMachineKeep, Title: "Look after:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		groupMachineLife: {
			newMachineCreateCommand(m), newMachineStartCommand(m), newMachineStopCommand(m), newMachineRestartCommand(m),
			newMachineSuspendCommand(m), newMachineResumeCommand(m), newMachineKillCommand(m), newMachineRmCommand(m),
		},
		groupMachineUse: {
			newMachineUseCommand(m), newMachineEnvCommand(m), newMachineConfigCommand(m), newMachineURLCommand(m), newMachineIPCommand(m),
			newMachineSSHCommand(m), newMachineShellCommand(m), newMachineSSHConfigCommand(m), newMachineScpCommand(m), newMachineMountCommand(m),
		},
		groupMachineLook: {
			newMachineLsCommand(m), newMachineStatusCommand(m), newMachineInspectCommand(m), newMachineActiveCommand(m),
			newMachineLogsCommand(m), newMachineTopCommand(m), newMachineDfCommand(m), newMachineDoctorCommand(m), newMachineVersionCommand(m),
		},
		groupMachineKeep: {
			newMachineEditCommand(m), newMachineCompactCommand(m), newMachineUpgradeCommand(m), newMachineSnapshotCommand(m), newMachineProvisionCommand(m), newMachineRegenerateCommand(m),
			newMachineAutostartCommand(m), newMachineImageCommand(m.app),
		},
	} {
		for _, sub := range commands {
			sub.GroupID, sub.DisableFlagsInUseLine = group, true
			c.AddCommand(sub)
		}
	}
	return c
}

// addGlobals adds docker-machine's flags before the command.
func (m *machines) addGlobals(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVarP(&m.storage, "storage-path", "s", m.getenv("MACHINE_STORAGE_PATH"), "`FOLDER` that holds the machines (default: ~/.dev)")
	for _, name := range []string{"tls-ca-cert", "tls-ca-key", "tls-client-cert", "tls-client-key", "github-api-token", "bugsnag-api-token"} {
		f.String(name, "", "without effect: machines make their own certificates and need no tokens")
		_ = f.MarkHidden(name)
	}
	f.Bool("native-ssh", true, "without effect: SSH needs no other program")
	_ = f.MarkHidden("native-ssh")
}
