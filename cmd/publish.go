// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/remote"
)

type publishOptions struct {
	resolveDigests, withEnv, yes, app, insecure bool
	version                                     string
}

func newPublishCommand(a *app) *cobra.Command {
	var o publishOptions
	c := &cobra.Command{
		Use:     "publish [OPTIONS] REPOSITORY[:TAG]",
		Short:   "Publish the application's Compose files in a registry",
		GroupID: groupImages,
		Long: `Pushes the images that are built, then the Compose files as an OCI artifact, which
dev -f oci://REPOSITORY:TAG up runs elsewhere. Variables stay variables. You are asked
before bind mounts, and what looks like a secret, are published.`,
		Example: `  dev publish registry.example/team/shop:1.2
  dev publish --resolve-image-digests registry.example/team/shop:1.2     always the same images
  dev -f oci://registry.example/team/shop:1.2 up`,
		Args:              takes(1, 1, "REPOSITORY"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runPublish(c.Context(), o, args[0])
		},
	}
	f := c.Flags()
	f.BoolVar(&o.resolveDigests, "resolve-image-digests", false, "pin images to the digests that their tags have now")
	f.StringVar(&o.version, "oci-version", "", "version of OCI to write, 1.0 or 1.1 (default: the newest that the registry takes)")
	f.BoolVar(&o.withEnv, "with-env", false, "publish env files, too")
	f.BoolVarP(&o.yes, "yes", "y", false, "answer every question with yes")
	f.BoolVar(&o.app, "app", false, "copy the images that services run into the repository, too")
	f.BoolVar(&o.insecure, "insecure-registry", false, "speak to the registry without TLS")
	_ = f.MarkHidden("insecure-registry")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "y" { // docker compose had --y for a while
			name = "yes"
		}
		return pflag.NormalizedName(name)
	})
	return c
}

func (a *app) runPublish(ctx context.Context, o publishOptions, ref string) error {
	if o.version != "" && o.version != "1.0" && o.version != "1.1" {
		return usagef("unknown --oci-version %q: use 1.0 or 1.1", o.version)
	}
	if err := remote.CheckReference(ref); err != nil {
		return err
	}
	if o.insecure {
		host, _, _ := strings.Cut(ref, "/")
		a.insecure = append(a.insecure, host)
	}
	l, err := a.loadOptions()
	if err != nil {
		return err
	}
	l.NoEnvResolution = true // env files are to be seen, not read
	p, err := a.loadWith(ctx, l, nil)
	if err != nil {
		return err
	}
	if p, err = p.WithProfiles([]string{"*"}); err != nil {
		return err
	}
	if err := o.check(p); err != nil {
		return err
	}
	files, err := compose.PublishFiles(p, o.withEnv)
	if err != nil {
		return err
	}
	if err := a.confirmPublish(ctx, p, files, o.yes); err != nil {
		return err
	}
	if a.dryRun {
		images, _ := pushable(p)
		for _, image := range images {
			if err := a.sayDryRun("push %s", image); err != nil {
				return err
			}
		}
		return a.sayDryRun("publish %d files as %s", len(files), ref)
	}
	return a.publish(ctx, o, p, files, ref)
}

// check refuses projects that could not be run elsewhere, or that would give away what was not asked to be.
func (o publishOptions) check(p *types.Project) error {
	var unnamed, envs []string
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.Image == "" && s.Provider == nil {
			unnamed = append(unnamed, name)
		}
		if len(s.EnvFiles) > 0 {
			envs = append(envs, name)
		}
	}
	switch {
	case len(unnamed) > 0:
		return withHint(fmt.Errorf("publish the project: no image is named for %s: nobody else could run what is built here", strings.Join(unnamed, ", ")),
			"add image: REPOSITORY:TAG beside build:")
	case len(envs) > 0 && !o.withEnv:
		return withHint(fmt.Errorf("publish the project: env_file of %s may hold secrets", strings.Join(envs, ", ")),
			"--with-env publishes the env files, too; or take them out of the Compose file")
	}
	return nil
}

// confirmPublish asks before things are published that users may not want others to see.
func (a *app) confirmPublish(ctx context.Context, p *types.Project, files []compose.PublishedFile, yes bool) error {
	var mounts, secrets []string
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, v := range p.Services[name].Volumes {
			if v.Type == types.VolumeTypeBind {
				mounts = append(mounts, name+": "+v.Source+" at "+v.Target)
			}
		}
	}
	for _, f := range compose.FindSecrets(files) {
		secrets = append(secrets, f.String())
	}
	for _, q := range []struct {
		text  string
		items []string
	}{
		{"These bind mounts are published, without the files:", mounts},
		{"This looks like secrets:", secrets},
	} {
		if len(q.items) == 0 || yes || a.dryRun {
			continue
		}
		a.say(q.text + "\n  " + strings.Join(q.items, "\n  "))
		ok, err := a.confirm(ctx, "Publish it?")
		if err != nil {
			return err
		}
		if !ok {
			return withHint(errors.New("not confirmed: nothing is published"), "--yes confirms")
		}
	}
	return nil
}

func (a *app) publish(ctx context.Context, o publishOptions, p *types.Project, files []compose.PublishedFile, ref string) error {
	if images, skipped := pushable(p); len(images) > 0 {
		e, err := a.openEngine(ctx, wantsEngine)
		if err != nil {
			return err
		}
		defer e.Close()
		if err := a.pushProjectImages(ctx, e, pushOptions{ignoreFailures: true}, images, skipped); err != nil {
			return err
		}
	}
	to := remote.PublishOptions{Version: o.version, Created: time.Now()}
	if o.resolveDigests || o.app {
		pinned, err := a.withDigests(ctx, p)
		if err != nil {
			return err
		}
		override, err := compose.ImagesOnly(pinned).MarshalYAML()
		if err != nil {
			return err
		}
		files = append(files, compose.PublishedFile{Name: "image-digests.yaml", Content: override})
		if o.app {
			to.Images = imagesOf(pinned)
		}
	}
	f, err := a.remoteFiles()
	if err != nil {
		return err
	}
	row := status{ID: ref, Text: "publishing"}
	progress := a.startProgress("publish", false)
	defer progress.close()
	progress.show(row)
	digest, err := f.Publish(ctx, ref, files, to)
	if err != nil {
		row.Text, row.State = "Error", rowFailed
		progress.show(row)
		return fmt.Errorf("publish %s: %w", ref, err)
	}
	row.Text, row.State, row.Details = "published", rowDone, digest
	progress.show(row)
	return nil
}

// imagesOf are the images that services run, each once.
func imagesOf(p *types.Project) (images []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		if image := p.Services[name].Image; image != "" && !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	return images
}
