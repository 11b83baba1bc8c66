// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"

	"github.com/spf13/cobra"
)

// Groups of commands in the help, in its order.
const (
	groupRun    = "run"
	groupLook   = "look"
	groupImages = "images"
	groupEngine = "engine"
)

// Command is the whole command tree, for what documents it; it is not for running.
func Command() *cobra.Command { return newRootCommand(&app{}) }

func newRootCommand(a *app) *cobra.Command {
	root := a.mount(&cobra.Command{
		Use:   "dev",
		Short: "Run multi-container applications on your workstation",
		Long: `dev runs the application that a Compose file describes: it builds or pulls its
images, makes its networks and volumes, and starts its containers in order.

On Linux it needs nothing else installed: it carries a Docker Engine and starts
it on demand, unless one answers already. Commands and flags are docker
compose's; dev X and dev compose X are the same.`,
		Example: `  dev up -d               start the application in this folder
  dev plan                show what up would do, and why
  dev logs -f web         follow the output of one service
  dev why web             say why it runs, waits, restarts or is unhealthy
  dev down                stop and remove it; volumes stay`,
	})
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return a.settle(c) }
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newEngineCommand(a), newEnvCommand(a), newSnapshotCommand(a), newLockCommand(a), newDoctorCommand(a), newUICommand(a), newMachineCommand(a), newHostAgentCommand(a), newInstallPluginCommand(a), a.mount(&cobra.Command{
		Use:     "compose",
		Short:   "The same commands, for fingers and scripts that type docker compose",
		GroupID: groupRun,
	}))
	root.SetUsageFunc(writeUsage)
	return root
}

// mount makes c a root of the compose commands: `dev` itself and `dev compose`. Each mount has commands of its own, as a command has one parent.
func (a *app) mount(c *cobra.Command) *cobra.Command {
	c.SilenceUsage, c.SilenceErrors = true, true
	c.TraverseChildren = true
	c.DisableFlagsInUseLine = true
	c.Use += " [OPTIONS] COMMAND"
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) > 0:
			return unknownCommand(c, args[0])
		case a.version:
			return a.showVersion(false, "")
		}
		return c.Help()
	}
	c.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run an application:"},
		&cobra.Group{ID: groupLook, Title: "See what is there and why:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupEngine, Title: "Engine:"},
	)
	a.addGlobals(c)
	for _, sub := range a.composeCommands() {
		sub.DisableFlagsInUseLine = true
		c.AddCommand(sub)
	}
	return c
}

// composeCommands makes the commands that work on a Compose project.
func (a *app) composeCommands() []*cobra.Command {
	return []*cobra.Command{
		newUpCommand(a), newDownCommand(a), newStartCommand(a), newStopCommand(a), newRestartCommand(a), newKillCommand(a), newRmCommand(a),
		newPauseCommand(a), newUnpauseCommand(a), newCreateCommand(a), newScaleCommand(a), newWatchCommand(a),
		newExecCommand(a), newRunCommand(a), newAttachCommand(a), newCpCommand(a),
		newPsCommand(a), newLogsCommand(a), newLsCommand(a), newPortCommand(a), newEventsCommand(a), newConfigCommand(a), newPlanCommand(a),
		newWhyCommand(a),
		newTopCommand(a), newStatsCommand(a), newVolumesCommand(a), newWaitCommand(a),
		newBuildCommand(a), newPullCommand(a), newPushCommand(a), newPublishCommand(a), newImagesCommand(a), newCommitCommand(a), newExportCommand(a),
		newBridgeCommand(a),
		newVersionCommand(a), newAlphaCommand(a),
	}
}

func unknownCommand(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q for %q", name, c.CommandPath())
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if near := nearest(name, names); near != "" {
		return withHint(err, "did you mean %s %s?", c.CommandPath(), near)
	}
	return withHint(err, "see %s --help", c.CommandPath())
}
