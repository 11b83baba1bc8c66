// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/seed71221737/dev/compose"
)

type configOptions struct {
	format, output, hash                     string
	quiet                                    bool
	services, volumes, networks, images      bool
	profiles, models, variables, environment bool
	noInterpolate, noNormalize, noPaths      bool
	noConsistency, noEnv                     bool
	resolveDigests, lockDigests              bool
}

func newConfigCommand(a *app) *cobra.Command {
	var o configOptions
	c := &cobra.Command{
		Use:     "config [OPTIONS] [SERVICE...]",
		Aliases: []string{"convert"},
		Short:   "Check the Compose files and show what they come to",
		Long: `Reads the Compose files with everything that they include, extend and refer to,
checks them and shows the result. No engine is needed.`,
		Example: `  dev config --quiet          check only
  dev config --services       list the services
  dev config --hash '*'       show the configuration hash of each service`,
		GroupID:           groupLook,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if a.compatibility {
				o.noNormalize = true
			}
			return a.runConfig(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.StringVar(&o.format, "format", "", "format of the output: yaml or json")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` instead of standard output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "only check, show nothing")
	f.BoolVar(&o.services, "services", false, "show the names of the services, dependencies first")
	f.BoolVar(&o.volumes, "volumes", false, "show the names of the volumes")
	f.BoolVar(&o.networks, "networks", false, "show the names of the networks")
	f.BoolVar(&o.images, "images", false, "show the images that services run")
	f.BoolVar(&o.profiles, "profiles", false, "show the names of the profiles")
	f.BoolVar(&o.models, "models", false, "show the names of the models")
	f.StringVar(&o.hash, "hash", "", "show the configuration hash of `SERVICES`, separated by commas; * for all")
	f.BoolVar(&o.variables, "variables", false, "show the variables that the files use, and their defaults")
	f.BoolVar(&o.environment, "environment", false, "show the environment that variables are taken from")
	f.BoolVar(&o.noInterpolate, "no-interpolate", false, "leave variables as they are written")
	f.BoolVar(&o.noNormalize, "no-normalize", false, "leave out defaults that are not written")
	f.BoolVar(&o.noPaths, "no-path-resolution", false, "leave relative paths relative")
	f.BoolVar(&o.noConsistency, "no-consistency", false, "skip the checks across the model; the result may not be valid")
	f.BoolVar(&o.noEnv, "no-env-resolution", false, "leave env_file unread")
	f.BoolVar(&o.resolveDigests, "resolve-image-digests", false, "pin images to digests")
	f.BoolVar(&o.lockDigests, "lock-image-digests", false, "show an override file that pins images to digests")
	return c
}

// options are those to load with.
func (o configOptions) options(a *app) (compose.LoadOptions, error) {
	l, err := a.loadOptions()
	l.NoInterpolate, l.NoNormalize, l.NoPathResolution = o.noInterpolate, o.noNormalize, o.noPaths
	l.NoConsistency, l.NoEnvResolution = o.noConsistency, o.noEnv
	return l, err
}

func (a *app) runConfig(ctx context.Context, o configOptions, services []string) error {
	if view := o.view(); view != nil {
		return view(ctx, a, services)
	}
	content, err := a.renderConfig(ctx, o, services)
	switch {
	case err != nil || o.quiet:
		return err
	case o.output != "":
		path, err := a.path(o.output)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			return fmt.Errorf("write %q: %w", o.output, err)
		}
		return nil
	}
	_, err = a.out.Write(content)
	return err
}

// renderConfig renders the whole model. A $ in it is doubled, so that the output is a Compose file again; with --no-interpolate they are
// variables still.
func (a *app) renderConfig(ctx context.Context, o configOptions, services []string) ([]byte, error) {
	l, err := o.options(a)
	if err != nil {
		return nil, err
	}
	if o.noInterpolate {
		model, err := compose.Model(ctx, l)
		if err != nil {
			return nil, err
		}
		return marshalAs(o.format, model)
	}
	p, err := a.loadWith(ctx, l, services)
	if err != nil {
		return nil, err
	}
	if o.resolveDigests || o.lockDigests {
		if p, err = a.withDigests(ctx, p); err != nil {
			return nil, err
		}
	}
	if o.lockDigests {
		p = compose.ImagesOnly(p)
	}
	content, err := marshalProject(o.format, p)
	return bytes.ReplaceAll(content, []byte("$"), []byte("$$")), err
}

func marshalProject(format string, p *types.Project) ([]byte, error) {
	switch format {
	case "", "yaml":
		return p.MarshalYAML()
	case "json":
		content, err := p.MarshalJSON()
		return append(content, '\n'), err
	}
	return nil, unknownFormat(format, "yaml", "json")
}

func marshalAs(format string, model any) ([]byte, error) {
	switch format {
	case "", "yaml":
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		err := e.Encode(model)
		return b.Bytes(), err
	case "json":
		content, err := json.MarshalIndent(model, "", "  ")
		return append(content, '\n'), err
	}
	return nil, unknownFormat(format, "yaml", "json")
}
