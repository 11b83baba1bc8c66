// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

// Version is the release's version, set by the linker; a plain `go build` leaves "dev".
var Version = "dev"

func newVersionCommand(a *app) *cobra.Command {
	var short bool
	var format string
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of dev",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.showVersion(short, format)
		},
	}
	c.Flags().BoolVar(&short, "short", false, "show only the version number")
	c.Flags().StringVarP(&format, "format", "f", "", "format of the output: pretty or json")
	return c
}

// showVersion shows dev's version; where the program stands in for docker compose, the version of docker compose that scripts and editors ask for
// to know what they can use.
func (a *app) showVersion(short bool, format string) error {
	version, text := Version, "dev version "+Version
	if a.dockerName != "" {
		version = "v" + compose.DockerComposeVersion
		text = "Docker Compose version " + version + " (dev " + Version + ")"
	}
	switch {
	case format == "json":
		return json.NewEncoder(a.out).Encode(map[string]string{"version": version})
	case format != "" && format != "pretty":
		return fmt.Errorf("unknown format %q: use pretty or json", format)
	case short:
		text = strings.TrimPrefix(version, "v")
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}
