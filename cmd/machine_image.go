// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/vmimage"
)

func newMachineImageCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Build, fetch and look after the images that machines boot",
		Long: `A machine image is a kernel, an initial RAM disk and a read-only root file system
with the engine in it. dev builds it from Debian packages pinned by digest, on
any system and without root, and moves it through any OCI registry. Images are
shared by machines and never written to.

See docs/vm-image.md for the image spec and its lock file.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{
		newMachineImageBuildCommand(a), newMachineImageLsCommand(a), newMachineImagePullCommand(a), newMachineImagePushCommand(a),
		newMachineImageVerifyCommand(a), newMachineImagePruneCommand(a),
	} {
		sub.DisableFlagsInUseLine = true
		c.AddCommand(sub)
	}
	return c
}

// imageStore is the user's store of machine images.
func (a *app) imageStore() (*vmimage.Store, error) {
	dir, err := a.userDir()
	if err != nil {
		return nil, err
	}
	return &vmimage.Store{Dir: filepath.Join(dir, "machine-images")}, nil
}

// downloadDir is where downloads are kept between commands.
func (a *app) downloadDir() (string, error) {
	dir, err := a.userDir()
	return filepath.Join(dir, "cache", "downloads"), err
}

// archFlag is --arch: the host's own where nothing is said.
func archFlag(c *cobra.Command, arch *string) {
	c.Flags().StringVar(arch, "arch", runtime.GOARCH, "architecture: "+strings.Join(vmimage.Arches, ", "))
}

// imageView is an image as --json shows it.
type imageView struct {
	Digest  string   `json:"digest"`
	Tags    []string `json:"tags"`
	Arch    string   `json:"arch,omitempty"`
	Kernel  string   `json:"kernel,omitempty"`
	Engine  string   `json:"engine,omitempty"`
	Size    int64    `json:"size"`
	Dir     string   `json:"dir"`
	Users   []string `json:"users"`
	Problem string   `json:"problem,omitempty"`
}

func newImageView(i vmimage.Image) imageView {
	v := imageView{Digest: "sha256:" + i.Digest, Tags: append([]string{}, i.Tags...), Size: i.Size, Dir: i.Dir, Users: append([]string{}, i.Users...)}
	if i.Manifest != nil {
		v.Arch, v.Kernel, v.Engine = i.Manifest.Arch, i.Manifest.Kernel, i.Manifest.Engine
	}
	if i.Problem != nil {
		v.Problem = i.Problem.Error()
	}
	return v
}

func newMachineImageLsCommand(a *app) *cobra.Command {
	var format formatFlag
	c := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List the machine images on this host",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.imageStore()
			if err != nil {
				return err
			}
			list, err := s.List()
			if err != nil {
				return err
			}
			if err := a.printImages(list, format.json()); err != nil || format.json() {
				return err
			}
			return a.tellTemplates(s)
		},
	}
	format.add(c)
	return c
}

func (a *app) printImages(list []vmimage.Image, asJSON bool) error {
	views := []imageView{}
	for _, i := range list {
		views = append(views, newImageView(i))
	}
	if asJSON {
		return json.NewEncoder(a.out).Encode(views)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "DIGEST\tTAGS\tARCH\tKERNEL\tENGINE\tSIZE\tUSED BY")
	for _, v := range views {
		used := strings.Join(v.Users, ", ")
		if v.Problem != "" {
			used = "damaged"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Digest[7:19], strings.Join(v.Tags, ", "), v.Arch, v.Kernel, v.Engine, units.HumanSize(float64(v.Size)), used)
	}
	return w.Flush()
}

func newMachineImageVerifyCommand(a *app) *cobra.Command {
	var arch string
	c := &cobra.Command{
		Use:   "verify [OPTIONS] [IMAGE|DIR...]",
		Short: "Compare images with the digests in their manifests",
		Long:  "Compare images with the digests in their manifests: the images named by tag, digest or folder, else all on this host.",
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.imageStore()
			if err != nil {
				return err
			}
			dirs, err := imageDirs(s, args, arch)
			if err != nil {
				return err
			}
			var errs []error
			for _, dir := range dirs {
				m, err := vmimage.Verify(dir)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(a.out, "%s: %s, kernel %s, engine %s: good\n", dir, m.Arch, m.Kernel, m.Engine)
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().StringVar(&arch, "arch", "", "architecture, where a tag names several images")
	return c
}

// imageDirs finds the folders of images by what the user called them.
func imageDirs(s *vmimage.Store, names []string, arch string) ([]string, error) {
	var dirs []string
	if len(names) == 0 {
		list, err := s.List()
		for _, i := range list {
			dirs = append(dirs, i.Dir)
		}
		return dirs, err
	}
	for _, name := range names {
		if strings.ContainsAny(name, `/\`) || name == "." {
			dirs = append(dirs, name)
			continue
		}
		i, err := s.Find(name, arch)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, i.Dir)
	}
	return dirs, nil
}

func newMachineImagePruneCommand(a *app) *cobra.Command {
	var o vmimage.PruneOptions
	c := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove images that no machine uses",
		Long: `Remove images that no machine uses and no tag names, and the templates of machines with
such images. Images in use stay in any case; each can be pulled or built again. With
--all, all templates go, too: the next new machine boots, and leaves another.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.imageStore()
			if err != nil {
				return err
			}
			removed, err := s.Prune(c.Context(), o)
			var freed int64
			for _, i := range removed {
				freed += i.Size
				fmt.Fprintln(a.out, "sha256:"+i.Digest)
			}
			if !o.Damaged {
				more, templateErr := a.pruneTemplates(s, o.All)
				freed, err = freed+more, errors.Join(err, templateErr)
			}
			fmt.Fprintf(a.err, "removed %d images, freed %s\n", len(removed), units.HumanSize(float64(freed)))
			return err
		},
	}
	c.Flags().BoolVarP(&o.All, "all", "a", false, "remove tagged images too")
	c.Flags().BoolVar(&o.Damaged, "damaged", false, "remove only images that fail verification")
	c.MarkFlagsMutuallyExclusive("all", "damaged")
	return c
}
