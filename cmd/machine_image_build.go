// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/vmimage"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// imageBuild are the flags of `machine image build`.
type imageBuild struct {
	arches            []string
	output, tag       string
	spec, lock        string
	engine, guest     string
	mirrors           []string
	keyring           string
	refresh, lockOnly bool
	noDisk            bool
}

func newMachineImageBuildCommand(a *app) *cobra.Command {
	var b imageBuild
	c := &cobra.Command{
		Use:   "build [OPTIONS]",
		Short: "Build a machine image from Debian packages and the engine",
		Long: `Build a machine image: Debian's kernel and packages as the lock file pins them,
the engine bundle, and dev's guest program. It needs neither root nor Linux, and
the same inputs give the same bytes.

Packages come from --mirror, else from DEV_IMAGE_MIRROR, else from
machine-images.mirrors in config.yaml, else from the host's own apt sources where
it is a Debian, else from Debian's snapshot service. Whatever the source, what
the lock file does not pin is refused.`,
		Example: `  dev machine image build                          for this host, into the store
  dev machine image build --arch amd64,arm64 -o out  both, into out/amd64 and out/arm64
  dev machine image build --refresh --lock new.json  resolve anew into a lock file`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return b.run(c.Context(), a) },
	}
	f := c.Flags()
	f.StringSliceVar(&b.arches, "arch", []string{runtime.GOARCH}, "architectures: "+strings.Join(vmimage.Arches, ", "))
	f.StringVarP(&b.output, "output", "o", "", "folder to write to, instead of the store of images")
	f.StringVarP(&b.tag, "tag", "t", "local", "tag in the store")
	f.StringVar(&b.spec, "spec", "", "image spec (default: dev's own)")
	f.StringVar(&b.lock, "lock", "", "lock file of the spec (default: dev's own, or beside the spec)")
	f.StringVar(&b.engine, "engine", "", "folder or file of the engine bundle (default: dist/ beside dev)")
	f.StringVar(&b.guest, "guest", "", "folder or file of the guest program (default: compiled from dev's source tree)")
	f.StringArrayVar(&b.mirrors, "mirror", nil, "base address below which debian/ and debian-security/ lie; may be repeated")
	f.StringVar(&b.keyring, "keyring", "", "OpenPGP keys of the archive (default: Debian's)")
	f.BoolVar(&b.refresh, "refresh", false, "resolve the newest versions and write the lock file")
	f.BoolVar(&b.lockOnly, "lock-only", false, "with --refresh: write the lock file and build nothing")
	f.BoolVar(&b.noDisk, "no-disk", false, "leave out the UEFI disk; it can be made from the rest at any time")
	return c
}

func (b *imageBuild) run(ctx context.Context, a *app) error {
	for _, arch := range b.arches {
		if !slices.Contains(vmimage.Arches, arch) {
			return fmt.Errorf("build image for %q: the architectures are %s", arch, strings.Join(vmimage.Arches, " and "))
		}
	}
	dir, err := a.downloadDir()
	if err != nil {
		return err
	}
	p := a.newTransfer()
	defer p.close()
	downloads := &vmimage.Downloads{Dir: dir, Progress: p.report}
	mirrors, err := b.sources(a)
	if err != nil {
		return err
	}
	spec, lock, err := b.inputs(ctx, a, mirrors, downloads)
	if err != nil || b.lockOnly {
		return err
	}
	for _, arch := range b.arches {
		if err := b.one(ctx, a, p, vmimage.BuildOptions{
			Spec: spec, Lock: lock, Arch: arch, GuestProtocol: proto.Version, DataSchema: proto.DataSchema, DataOldest: proto.DataOldest, Mirrors: mirrors, Downloads: downloads, NoDisk: b.noDisk,
			Step: func(text string) { p.talk(arch + ": " + text) },
		}); err != nil {
			return err
		}
	}
	return nil
}

// sources are the mirrors to try: those of flags, else of the environment, else of the configuration, before the host's own.
func (b *imageBuild) sources(a *app) (vmimage.Mirrors, error) {
	m := vmimage.Mirrors{Given: b.mirrors}
	if v := a.getenv("DEV_IMAGE_MIRROR"); v != "" && len(m.Given) == 0 {
		m.Given = strings.Fields(v)
	}
	if len(m.Given) == 0 {
		dir, err := a.userDir()
		if err != nil {
			return m, err
		}
		c, err := config.Load(filepath.Join(dir, config.FileName))
		if err != nil {
			return m, err
		}
		m.Given = c.MachineImages.Mirrors
	}
	if runtime.GOOS == "linux" {
		m.Host = os.DirFS("/")
	}
	return m, nil
}

// inputs reads spec and lock, or makes the lock anew.
func (b *imageBuild) inputs(ctx context.Context, a *app, m vmimage.Mirrors, d *vmimage.Downloads) (*vmimage.Spec, *vmimage.Lock, error) {
	specText, specName := vmimage.DefaultSpec, "dev's own image spec"
	var err error
	if b.spec != "" {
		specName = b.spec
		if specText, err = os.ReadFile(b.spec); err != nil {
			return nil, nil, fmt.Errorf("read image spec: %w", err)
		}
	}
	spec, err := vmimage.ParseSpec(specName, specText)
	if err != nil {
		return nil, nil, err
	}
	lockName := b.lock
	if lockName == "" && b.spec != "" {
		lockName = strings.TrimSuffix(b.spec, filepath.Ext(b.spec)) + ".lock.json"
	}
	if b.refresh {
		lock, err := b.resolve(ctx, a, spec, lockName, m, d)
		return spec, lock, err
	}
	lockText := vmimage.DefaultLock
	if lockName != "" {
		lockText, err = os.ReadFile(lockName)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, withHint(err, "make the lock file with --refresh")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read lock file: %w", err)
		}
	}
	lock, err := vmimage.ParseLock(cmp.Or(lockName, "dev's own lock file"), lockText)
	return spec, lock, err
}

// resolve makes a new lock for both architectures, so that it serves whoever builds next.
func (b *imageBuild) resolve(ctx context.Context, a *app, spec *vmimage.Spec, name string, m vmimage.Mirrors, d *vmimage.Downloads) (*vmimage.Lock, error) {
	if name == "" {
		return nil, withHint(errors.New("resolve the image anew: there is no file to write the lock to"), "name one with --lock")
	}
	keys := vmimage.DefaultKeyring
	if b.keyring != "" {
		var err error
		if keys, err = os.ReadFile(b.keyring); err != nil {
			return nil, fmt.Errorf("read archive keys: %w", err)
		}
	}
	lock, err := vmimage.Refresh(ctx, spec, vmimage.RefreshOptions{Keyring: keys, Mirrors: m, Downloads: d, Arches: vmimage.Arches, Now: time.Now()})
	if err != nil {
		return nil, err
	}
	if err := lock.Write(name); err != nil {
		return nil, err
	}
	fmt.Fprintf(a.err, "wrote %s: %d packages\n", name, len(lock.Packages[vmimage.Arches[0]]))
	return lock, nil
}

// one builds one architecture's image.
func (b *imageBuild) one(ctx context.Context, a *app, p *transfer, o vmimage.BuildOptions) error {
	var err error
	if o.Engine, err = b.engineFile(o.Arch); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "dev-image-*")
	if err != nil {
		return fmt.Errorf("make build folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	if o.Guest, err = b.guestFile(ctx, a, o.Arch, tmp); err != nil {
		return err
	}
	if b.output != "" {
		o.Dir = b.output
		if len(b.arches) > 1 {
			o.Dir = filepath.Join(b.output, o.Arch)
		}
		m, err := vmimage.Build(ctx, o)
		if err != nil {
			return err
		}
		p.close()
		return a.printBuilt(o.Dir, m)
	}
	store, err := a.imageStore()
	if err != nil {
		return err
	}
	if o.Dir, err = store.Workspace(); err != nil {
		return err
	}
	defer os.RemoveAll(o.Dir)
	if _, err := vmimage.Build(ctx, o); err != nil {
		return err
	}
	image, err := store.Add(ctx, o.Dir, b.tag)
	if err != nil {
		return err
	}
	p.close()
	return a.printBuilt("sha256:"+image.Digest, image.Manifest)
}

func (a *app) printBuilt(name string, m *vmimage.Manifest) error {
	var size int64
	for _, f := range m.Files {
		size += f.Size
	}
	_, err := fmt.Fprintf(a.out, "%s\n", name)
	fmt.Fprintf(a.err, "%s image with kernel %s and engine %s: %s\n", m.Arch, m.Kernel, m.Engine, units.HumanSize(float64(size)))
	return err
}

// engineFile finds the engine bundle for an architecture.
func (b *imageBuild) engineFile(arch string) (string, error) {
	name := "engine-linux-" + arch + ".tar.zst"
	tried := []string{filepath.Join("dist", name)}
	if exe, err := os.Executable(); err == nil {
		dir := filepath.Dir(exe)
		tried = append(tried, filepath.Join(dir, name), filepath.Join(dir, "..", "dist", name), filepath.Join(dir, "..", "share", "dev", name))
	}
	if b.engine != "" {
		tried = []string{b.engine, filepath.Join(b.engine, name)}
	}
	for _, t := range tried {
		if info, err := os.Stat(t); err == nil && info.Mode().IsRegular() {
			return t, nil
		}
	}
	return "", withHint(fmt.Errorf("find the engine bundle for %q: it is at none of %q", arch, tried), "make it with `make bundle`, or name it with --engine")
}

// guestFile finds the guest program for an architecture, or compiles it.
func (b *imageBuild) guestFile(ctx context.Context, a *app, arch, tmp string) (string, error) {
	if b.guest == "" {
		out := filepath.Join(tmp, "guest")
		return out, vmimage.CompileGuest(ctx, a.cwd, arch, out)
	}
	for _, t := range []string{b.guest, filepath.Join(b.guest, "guest-linux-"+arch)} {
		if info, err := os.Stat(t); err == nil && info.Mode().IsRegular() {
			return t, nil
		}
	}
	return "", fmt.Errorf("find the guest program for %q: it is not at %q", arch, b.guest)
}
