// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/docker/go-units"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/vmimage"
)

// templates are the states of machines without data beside a store of images.
func (a *app) templates(s *vmimage.Store) *saved.Templates {
	return (&machine.Store{Images: s, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}).Templates()
}

// tellTemplates says how much room templates take up, besides images.
func (a *app) tellTemplates(s *vmimage.Store) error {
	list, err := a.templates(s).List()
	if err != nil || len(list) == 0 {
		return err
	}
	var size int64
	for _, t := range list {
		size += t.OnHost
	}
	fmt.Fprintf(a.err, "%d of these kinds of machines start at once when they are new: their templates take up %s\n", len(list), units.HumanSize(float64(size)))
	return nil
}

// pruneTemplates removes the templates of images that are gone, or all.
func (a *app) pruneTemplates(s *vmimage.Store, all bool) (freed int64, err error) {
	images, err := s.List()
	if err != nil {
		return 0, err
	}
	return a.templates(s).Prune(func(t saved.TemplateInfo) bool {
		return !all && slices.ContainsFunc(t.Facts, func(f saved.Fact) bool {
			return f.Name == "image" && slices.ContainsFunc(images, func(i vmimage.Image) bool { return i.Digest == f.Value })
		})
	})
}
