// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	imageref "github.com/distribution/reference"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// What docker compose transforms with unless told otherwise, and what its transformations are built on.
const (
	defaultTransformation = "docker/compose-bridge-kubernetes"
	transformationBase    = "docker/compose-bridge-transformer"
)

// newBridgeCommand has the images that make another model of a Compose project: Kubernetes manifests, Helm charts.
func newBridgeCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "bridge COMMAND", Short: "Convert the application to another model, such as Kubernetes", GroupID: groupImages,
		RunE: onlySubcommands,
	}
	transformations := &cobra.Command{Use: "transformations COMMAND", Short: "Manage the images that convert", RunE: onlySubcommands}
	transformations.AddCommand(newTransformationsListCommand(a), newTransformationsCreateCommand(a))
	c.AddCommand(newBridgeConvertCommand(a), transformations)
	return c
}

// onlySubcommands is for commands that do nothing themselves.
func onlySubcommands(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(c, args[0])
	}
	return c.Help()
}

type bridgeOptions struct {
	output, templates string
	transformations   []string
}

func newBridgeConvertCommand(a *app) *cobra.Command {
	var o bridgeOptions
	c := &cobra.Command{
		Use:   "convert [OPTIONS]",
		Short: "Convert the application with an image that knows how",
		Long: `Gives the whole model to the program of an image and writes what it makes of it to a
folder, which is replaced. Several images work on the folder one after the other.`,
		Example: `  dev bridge convert                              Kubernetes manifests into out
  dev bridge convert -t my/transformation -o k8s  with an image of your own`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runBridgeConvert(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "out", "`FOLDER` to write to")
	f.StringArrayVarP(&o.transformations, "transformation", "t", nil, "`IMAGE` to convert with; may be repeated (default: "+defaultTransformation+")")
	f.StringVar(&o.templates, "templates", "", "`FOLDER` of templates in place of the image's")
	return c
}

func (a *app) runBridgeConvert(ctx context.Context, o bridgeOptions) error {
	if len(o.transformations) == 0 {
		o.transformations = []string{defaultTransformation}
	}
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	if o.output, err = a.path(o.output); err != nil {
		return err
	}
	if err := a.replaceable(p, o.output); err != nil {
		return err
	}
	if o.templates != "" {
		if o.templates, err = a.path(o.templates); err != nil {
			return err
		}
		if info, err := os.Stat(o.templates); err != nil || !info.IsDir() {
			return fmt.Errorf("--templates %q is not a folder that is there", o.templates)
		}
	}
	if a.dryRun {
		return a.sayDryRun("convert project %s with %s into %s", p.Name, strings.Join(o.transformations, ", "), o.output)
	}
	e, err := a.openEngine(ctx, startsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	model, err := a.bridgeModel(ctx, e, p, o.transformations)
	if err != nil {
		return err
	}
	return replaceFolder(o.output, func(folder string) error {
		for _, t := range o.transformations {
			a.say("Converting with " + t)
			err := e.Transform(ctx, engine.Transformation{
				Image: t, Model: model, Out: folder, Templates: o.templates, User: ownUID(), Log: a.out,
			})
			if exit, ok := errors.AsType[*engine.ExitError](err); ok {
				err = fmt.Errorf("its program ended with exit code %d", exit.Code)
			}
			if err != nil {
				return fmt.Errorf("convert with %s: %w", t, err)
			}
		}
		return nil
	})
}

// ownUID is the user that files are to belong to, as far as an engine understands it.
func ownUID() string {
	u, err := user.Current()
	if err != nil || runtime.GOOS == "windows" {
		return ""
	}
	return u.Uid
}

// replaceable refuses to replace a folder that more depends on than what an earlier conversion has written.
func (a *app) replaceable(p *types.Project, output string) error {
	home, _ := os.UserHomeDir()
	for _, dir := range []string{a.cwd, p.WorkingDir, home} {
		if dir == "" {
			continue
		}
		if rel, err := filepath.Rel(output, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return withHint(fmt.Errorf("the folder %q would be replaced, with %q in it", output, dir), "name a folder of its own: --output out")
		}
	}
	if info, err := os.Stat(output); err == nil && !info.IsDir() {
		return fmt.Errorf("--output %q is not a folder", output)
	}
	return nil
}

// replaceFolder replaces a folder by what fill puts into an empty one. Until fill has succeeded the old one stays.
func replaceFolder(folder string, fill func(folder string) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(folder), 0o777); err != nil {
		return fmt.Errorf("make the output folder: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(folder), "."+filepath.Base(folder)+"-*")
	if err != nil {
		return fmt.Errorf("make the output folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	made := filepath.Join(work, "new")
	if err := os.Mkdir(made, 0o777); err != nil {
		return fmt.Errorf("make the output folder: %w", err)
	}
	if err := fill(made); err != nil {
		return err
	}
	if err := os.Chmod(made, 0o755); err != nil {
		return err
	}
	if err := os.Rename(folder, filepath.Join(work, "old")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace %q: %w", folder, err)
	}
	return os.Rename(made, folder)
}

// bridgeModel renders the project, with what its images say. Images that are not there are pulled.
func (a *app) bridgeModel(ctx context.Context, e *engine.Client, p *types.Project, transformations []string) ([]byte, error) {
	refs := map[string]string{} // with their platforms
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		if s.Provider != nil {
			continue
		}
		ref := compose.ImageName(p, s)
		if _, found, err := e.InspectImage(ctx, ref); err != nil {
			return nil, err
		} else if !found && s.Build != nil {
			return nil, withHint(fmt.Errorf("the image of service %q is not built", name), "dev build %s", name)
		}
		refs[ref] = s.Platform
	}
	needed := maps.Clone(refs)
	for _, t := range transformations {
		needed[t] = ""
	}
	if err := a.pullMissing(ctx, e, needed); err != nil {
		return nil, err
	}
	exposed := map[string][]string{}
	for ref := range refs {
		found, _, err := e.InspectImage(ctx, ref)
		if err != nil {
			return nil, err
		}
		if found.Config == nil {
			continue
		}
		for port := range found.Config.ExposedPorts {
			number, _, _ := strings.Cut(port, "/")
			exposed[ref] = append(exposed[ref], number)
		}
	}
	return compose.BridgeModel(p, exposed)
}

// pullMissing pulls those of the images, given with their platforms, that the engine does not have.
func (a *app) pullMissing(ctx context.Context, e *engine.Client, images map[string]string) error {
	var plan compose.Plan
	for _, ref := range slices.Sorted(maps.Keys(images)) {
		if _, found, err := e.InspectImage(ctx, ref); err != nil || found {
			if err != nil {
				return err
			}
			continue
		}
		plan.Ops = append(plan.Ops, compose.Op{
			ID: len(plan.Ops) + 1, Kind: compose.OpPullImage, Target: "image " + ref, Reason: "not there",
			Image: &compose.ImageSpec{Ref: ref, Platform: images[ref]},
		})
	}
	if plan.Empty() {
		return nil
	}
	return a.apply(ctx, e, plan, applyOptions{heading: "pull"})
}

func newTransformationsListCommand(a *app) *cobra.Command {
	var quiet bool
	var format string
	c := &cobra.Command{
		Use:     "list [OPTIONS]",
		Aliases: []string{"ls"},
		Short:   "List the images that convert",
		Args:    takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return unknownFormat(format, "table", "json")
			}
			return a.runTransformationsList(c.Context(), quiet, format)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show only names")
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

func (a *app) runTransformationsList(ctx context.Context, quiet bool, format string) error {
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	images, err := e.Transformations(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(images, func(a, b image.Summary) int { return cmp.Compare(transformationName(a), transformationName(b)) })
	switch {
	case quiet:
		var names []string
		for i := range images {
			names = append(names, transformationName(images[i]))
		}
		return a.printLines(names)
	case format == "json":
		if images == nil {
			images = []image.Summary{}
		}
		return writeJSON(a.out, images)
	}
	t := &table{header: []string{"IMAGE ID", "REPO", "TAGS", "SIZE"}}
	for i := range images {
		repository, tag := "<none>", "<none>"
		if ref, err := imageref.ParseDockerRef(transformationName(images[i])); err == nil && len(images[i].RepoTags) > 0 {
			repository = imageref.FamiliarName(ref)
			if tagged, ok := ref.(imageref.Tagged); ok {
				tag = tagged.Tag()
			}
		}
		t.add(formatter.TruncateID(strings.TrimPrefix(images[i].ID, "sha256:")), repository, tag, units.HumanSizeWithPrecision(float64(images[i].Size), 3))
	}
	return t.write(a.out)
}

// transformationName is what to give to convert.
func transformationName(i image.Summary) string {
	if len(i.RepoTags) > 0 {
		return i.RepoTags[0]
	}
	return i.ID
}

func newTransformationsCreateCommand(a *app) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:     "create [OPTIONS] PATH",
		Short:   "Begin an image that converts in your own way, with the templates of another",
		Example: `  dev bridge transformations create mine && docker build -t my/transformation mine`,
		Args:    takes(1, 1, "PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runTransformationsCreate(c.Context(), from, args[0])
		},
	}
	c.Flags().StringVarP(&from, "from", "f", defaultTransformation, "`IMAGE` to take the templates of")
	return c
}

func (a *app) runTransformationsCreate(ctx context.Context, from, folder string) error {
	path, err := a.path(folder)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return withHint(fmt.Errorf("the folder %q is there already", path), "name one that is not")
	}
	if a.dryRun {
		return a.sayDryRun("copy the templates of %s to %s", from, path)
	}
	e, err := a.openEngine(ctx, startsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := a.pullMissing(ctx, e, map[string]string{from: ""}); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("make %q: %w", path, err)
	}
	if err := e.CopyTemplates(ctx, from, path); err != nil {
		return err
	}
	dockerfile := "FROM " + transformationBase + "\nLABEL com.docker.compose.bridge=transformation\nCOPY templates /templates\n"
	if err := os.WriteFile(filepath.Join(path, "Dockerfile"), []byte(dockerfile), 0o666); err != nil {
		return fmt.Errorf("write the Dockerfile: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "Transformer created in %q\n", path)
	return err
}
