// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/native"
)

func newEngineUninstallCommand(a *app) *cobra.Command {
	var o native.UninstallOptions
	var yes bool
	c := &cobra.Command{
		Use:   "uninstall [OPTIONS]",
		Short: "Stop the engine and remove its programs, unit and sockets",
		Long: `Stop the engine and its containers and remove what dev installed for it:
programs, systemd unit, run files, logs and the docker context dev. Images,
containers and volumes stay, and are there again after the next start, unless
--data is given.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.uninstallEngine(c.Context(), o, yes) },
	}
	c.Flags().BoolVar(&o.Data, "data", false, "remove images, containers and volumes too")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) uninstallEngine(ctx context.Context, o native.UninstallOptions, yes bool) error {
	s := a.service()
	questions := []string{"Stop dev's engine and its containers, and remove its programs?"}
	if o.Data {
		questions = append(questions, fmt.Sprintf("Remove all images, containers and VOLUMES below %s for good?", s.Paths.Root))
	}
	for _, q := range questions {
		if yes {
			break
		}
		agreed, err := a.agree(ctx, q, false)
		if err != nil {
			return withHint(err, "--yes answers yes")
		}
		if !agreed {
			fmt.Fprintln(a.err, "Nothing was removed.")
			return nil
		}
	}
	if err := s.Uninstall(ctx, o); err != nil {
		return err
	}
	if err := a.dropContext(ctx); err != nil {
		return err
	}
	fmt.Fprintln(a.err, "Engine uninstalled.")
	return nil
}

// errNoTerminal says that a question cannot be asked.
var errNoTerminal = errors.New("there is no terminal to ask on")

// agree asks a yes-or-no question on the terminal; an empty line is the default.
func (a *app) agree(ctx context.Context, question string, byDefault bool) (bool, error) {
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return false, fmt.Errorf("ask %q: %w", question, errNoTerminal)
	}
	choices := map[bool]string{true: "[Y/n]", false: "[y/N]"}[byDefault]
	fmt.Fprintf(a.err, "%s %s ", question, choices)
	line := make(chan string, 1)
	go func() { // reading a terminal cannot be interrupted; the process ends soon after ctx
		text, _ := bufio.NewReader(a.in).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "":
			return byDefault && strings.HasSuffix(text, "\n"), nil // end of file is no agreement
		case "y", "yes":
			return true, nil
		}
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
