// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
)

// configView shows one aspect of the model.
type configView func(ctx context.Context, a *app, services []string) error

// view is the aspect that the flags ask for, nil for the whole model.
func (o configOptions) view() configView {
	switch {
	case o.services && o.noInterpolate:
		return o.rawServices
	case o.services:
		return o.list(func(p *types.Project) ([]string, error) { return servicesInOrder(p) })
	case o.volumes:
		return o.list(func(p *types.Project) ([]string, error) { return slices.Sorted(maps.Keys(p.Volumes)), nil })
	case o.networks:
		return o.list(func(p *types.Project) ([]string, error) { return slices.Sorted(maps.Keys(p.Networks)), nil })
	case o.models:
		return o.list(models)
	case o.hash != "":
		return o.hashes
	case o.profiles:
		return o.list(func(p *types.Project) ([]string, error) {
			return slices.Sorted(slices.Values(p.AllServices().GetProfiles())), nil
		})
	case o.images:
		return o.list(images)
	case o.variables:
		return o.showVariables
	case o.environment:
		return o.list(func(p *types.Project) ([]string, error) {
			return slices.Sorted(slices.Values(p.Environment.Values())), nil
		})
	}
	return nil
}

// list is a view of names, one a line.
func (o configOptions) list(names func(*types.Project) ([]string, error)) configView {
	return func(ctx context.Context, a *app, services []string) error {
		l, err := o.options(a)
		if err != nil {
			return err
		}
		p, err := a.loadWith(ctx, l, services)
		if err != nil {
			return err
		}
		lines, err := names(p)
		if err != nil || o.quiet {
			return err
		}
		return a.printLines(lines)
	}
}

// printLines prints one line each on stdout.
func (a *app) printLines(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(a.out, strings.Join(lines, "\n"))
	return err
}

// servicesInOrder names the services, those that others depend on first.
func servicesInOrder(p *types.Project) (names []string, err error) {
	err = p.ForEachService(slices.Sorted(maps.Keys(p.Services)), func(name string, _ *types.ServiceConfig) error {
		names = append(names, name)
		return nil
	})
	return names, err
}

func images(p *types.Project) (refs []string, _ error) {
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		refs = append(refs, compose.ImageName(p, p.Services[name]))
	}
	return refs, nil
}

func models(p *types.Project) (names []string, _ error) {
	for _, key := range slices.Sorted(maps.Keys(p.Models)) {
		if m := p.Models[key].Model; m != "" {
			names = append(names, m)
		}
	}
	return names, nil
}

// rawServices names the services without filling in variables.
func (o configOptions) rawServices(ctx context.Context, a *app, _ []string) error {
	l, err := o.options(a)
	if err != nil {
		return err
	}
	model, err := compose.Model(ctx, l)
	if err != nil {
		return err
	}
	services, _ := model["services"].(map[string]any)
	return a.printLines(slices.Sorted(maps.Keys(services)))
}

// hashes shows the hash that a container's label has: env files included, so that the two can be compared.
func (o configOptions) hashes(ctx context.Context, a *app, _ []string) error {
	l, err := o.options(a)
	if err != nil {
		return err
	}
	p, err := a.loadWith(ctx, l, nil)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(p.Services))
	if o.hash != "*" {
		names = slices.Sorted(slices.Values(splitList(o.hash)))
	}
	for _, name := range names {
		s, ok := p.Services[name]
		if !ok {
			return noSuchService(name, slices.Collect(maps.Keys(p.Services)))
		}
		hash, err := compose.ServiceHash(p, s)
		if err != nil {
			return fmt.Errorf("hash service %q: %w", name, err)
		}
		fmt.Fprintf(a.out, "%s %s\n", name, hash)
	}
	return nil
}

// showVariables lists the variables that the files use.
func (o configOptions) showVariables(ctx context.Context, a *app, _ []string) error {
	o.noInterpolate = true
	l, err := o.options(a)
	if err != nil {
		return err
	}
	model, err := compose.Model(ctx, l)
	if err != nil {
		return err
	}
	variables := template.ExtractVariables(model, template.DefaultPattern)
	if o.format == "yaml" || o.format == "json" {
		content, err := marshalAs(o.format, variables)
		if err != nil {
			return err
		}
		_, err = a.out.Write(content)
		return err
	}
	sorted := slices.SortedFunc(maps.Values(variables), func(x, y template.Variable) int { return cmp.Compare(x.Name, y.Name) })
	t := table{header: []string{"NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"}}
	for _, v := range sorted {
		t.add(v.Name, strconv.FormatBool(v.Required), v.DefaultValue, v.PresenceValue)
	}
	return t.write(a.out)
}
