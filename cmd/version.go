// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
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
			switch {
			case format == "json":
				return json.NewEncoder(a.out).Encode(map[string]string{"version": Version})
			case format != "" && format != "pretty":
				return fmt.Errorf("unknown format %q: use pretty or json", format)
			case short:
				_, err := fmt.Fprintln(a.out, strings.TrimPrefix(Version, "v"))
				return err
			}
			_, err := fmt.Fprintln(a.out, "dev version "+Version)
			return err
		},
	}
	c.Flags().BoolVar(&short, "short", false, "show only the version number")
	c.Flags().StringVarP(&format, "format", "f", "", "format of the output: pretty or json")
	return c
}
