// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/vmimage"
)

// MachineImage is the image that this build of dev boots machines with: a reference with its digest, set by the linker in releases.
var MachineImage = ""

func newMachineImagePullCommand(a *app) *cobra.Command {
	var arch, tag string
	c := &cobra.Command{
		Use:   "pull [OPTIONS] [REFERENCE]",
		Short: "Fetch a machine image from a registry",
		Long: `Fetch a machine image from a registry: the one that belongs to this release of
dev, or the one named, as registry/repository:tag or …@sha256:digest. A transfer
that was cut off goes on where it ended.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			reference := MachineImage
			if len(args) > 0 {
				reference = args[0]
			}
			if reference == "" {
				return withHint(errors.New("pull machine image: this build of dev belongs to no released image"), "name one, or build it with `dev machine image build`")
			}
			if tag == "" {
				tag, _, _ = strings.Cut(reference, "@")
			}
			return a.pullImage(c.Context(), reference, arch, tag)
		},
	}
	archFlag(c, &arch)
	c.Flags().StringVarP(&tag, "tag", "t", "", "tag in the store (default: the reference)")
	return c
}

func (a *app) pullImage(ctx context.Context, reference, arch, tag string) error {
	s, err := a.imageStore()
	if err != nil {
		return err
	}
	p := a.newTransfer()
	defer p.close()
	r, err := vmimage.OpenRemote(reference, filepath.Join(s.Dir, "transfers"), p.report)
	if err != nil {
		return err
	}
	i, err := r.Pull(ctx, s, arch, tag)
	if err != nil {
		return err
	}
	p.close()
	_, err = fmt.Fprintln(a.out, "sha256:"+i.Digest)
	return err
}

func newMachineImagePushCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "push IMAGE REFERENCE",
		Short: "Put a machine image into a registry",
		Long: `Put the images of a tag, one per architecture, into a registry under one
reference, and print the digest to pin. IMAGE is a tag or a digest.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return a.pushImages(c.Context(), args[0], args[1]) },
	}
	return c
}

func (a *app) pushImages(ctx context.Context, name, reference string) error {
	s, err := a.imageStore()
	if err != nil {
		return err
	}
	var images []vmimage.Image
	for _, arch := range vmimage.Arches {
		i, err := s.Find(name, arch)
		if _, missing := errors.AsType[*vmimage.NotFoundError](err); missing {
			continue
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(images, func(j vmimage.Image) bool { return i.Digest == j.Digest }) {
			images = append(images, i)
		}
	}
	if len(images) == 0 {
		return &vmimage.NotFoundError{Name: name}
	}
	p := a.newTransfer()
	defer p.close()
	r, err := vmimage.OpenRemote(reference, filepath.Join(s.Dir, "transfers"), p.report)
	if err != nil {
		return err
	}
	pin, err := r.Push(ctx, images)
	if err != nil {
		return err
	}
	p.close()
	repository, _, _ := strings.Cut(reference, "@")
	_, err = fmt.Fprintf(a.out, "%s@%s\n", repository, pin)
	return err
}

// transfer shows how downloads and uploads go: one line that is drawn anew on a terminal, a line per file elsewhere.
type transfer struct {
	a        *app
	terminal bool

	mu     sync.Mutex
	files  map[string]amount
	drawn  time.Time
	onLine bool
}

type amount struct{ done, total int64 }

// drawEvery is how often the line is drawn.
const drawEvery = 100 * time.Millisecond

func (a *app) newTransfer() *transfer {
	return &transfer{a: a, terminal: isTerminal(a.err), files: map[string]amount{}}
}

// report may be called from several goroutines.
func (t *transfer) report(name string, done, total int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.files[name]
	t.files[name] = amount{done, total}
	if !t.terminal {
		if done >= total && before.done < total {
			fmt.Fprintf(t.a.err, "%s: %s\n", name, units.HumanSize(float64(total)))
		}
		return
	}
	if time.Since(t.drawn) < drawEvery && done < total {
		return
	}
	t.drawn = time.Now()
	var sum amount
	for f := range maps.Values(t.files) {
		sum.done += f.done
		sum.total += f.total
	}
	t.onLine = true
	fmt.Fprintf(t.a.err, "\r\x1b[K%s of %s, %d files: %s", units.HumanSize(float64(sum.done)), units.HumanSize(float64(sum.total)), len(t.files), name)
}

// talk shows a line of its own.
func (t *transfer) talk(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	fmt.Fprintln(t.a.err, text)
}

// clear removes the line; the caller holds the lock.
func (t *transfer) clear() {
	if t.onLine {
		fmt.Fprint(t.a.err, "\r\x1b[K")
		t.onLine = false
	}
}

// close gives the terminal back. It may be called again.
func (t *transfer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
}
