// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/seed71221737/dev/engine/native/archive"
	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Where things lie in an image. The guest knows the same paths.
const (
	guestPath  = "usr/sbin/dev-guest"
	enginePath = "usr/local" // the bundle's bin/ lands in usr/local/bin
	indexPath  = "usr/lib/modules/index"
)

// BuildOptions are the inputs of a build.
type BuildOptions struct {
	Spec *Spec
	Lock *Lock
	Arch string
	// Engine is the engine bundle's file, Guest the guest program's, both for Arch and Linux.
	Engine, Guest string
	GuestProtocol int
	// DataSchema and DataOldest are the guest program's, as in the Manifest.
	DataSchema, DataOldest int
	Mirrors                Mirrors
	Downloads              *Downloads
	// Dir is where the image goes; its files are replaced.
	Dir string
	// NoDisk leaves out the UEFI disk, which can be made later (MakeDisk).
	NoDisk bool
	// Step is told what the build does next; may be nil.
	Step func(text string)
}

// Build makes an image for one architecture and returns its manifest. The folder gets all files or keeps those it had; after a crash it may have a
// mixture, without a manifest.
func Build(ctx context.Context, o BuildOptions) (_ *Manifest, err error) {
	if err := o.Lock.check(o.Spec, o.Arch); err != nil {
		return nil, err
	}
	parent := filepath.Dir(filepath.Clean(o.Dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("make output folder: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, ".tmp-image-*")
	if err != nil {
		return nil, fmt.Errorf("make build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	b := &build{BuildOptions: o, tmp: tmp, manifest: &Manifest{
		Schema: ManifestSchema, Name: o.Spec.Name, Arch: o.Arch, Time: o.Lock.Timestamp, GuestProtocol: o.GuestProtocol, DataSchema: o.DataSchema, DataOldest: o.DataOldest,
		Cmdline: o.Spec.Kernel.Cmdline[o.Arch],
	}}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, step := range []struct {
		text string
		run  func(context.Context) error
	}{
		{"download packages", b.download},
		{"unpack packages", b.unpack},
		{"choose kernel modules", b.modules},
		{"write root file system", b.rootfs},
		{"write kernel and initial RAM disk", b.bootFiles},
		{"write manifest", b.finish},
	} {
		if o.Step != nil {
			o.Step(step.text)
		}
		if err := errors.Join(step.run(ctx), ctx.Err()); err != nil {
			return nil, fmt.Errorf("build image for %q: %s: %w", o.Arch, step.text, err)
		}
	}
	return b.manifest, install(tmp, o.Dir)
}

// build is one build under way.
type build struct {
	BuildOptions
	tmp      string
	manifest *Manifest
	files    []string // the packages' files, in the lock's order
	root     *tree    // the root file system
	kernel   *tree    // the kernel package
	stub     *tree    // the EFI stub's package
	version  string   // the kernel's release
	set      *moduleSet
	early    *tree // the initial RAM disk
}

func (b *build) close() error {
	var errs []error
	for _, t := range []*tree{b.root, b.kernel, b.stub, b.early} {
		if t != nil {
			errs = append(errs, t.close())
		}
	}
	return errors.Join(errs...)
}

func (b *build) download(ctx context.Context) (err error) {
	var blobs []Blob
	for _, p := range b.Lock.Packages[b.Arch] {
		blobs = append(blobs, Blob{
			Name: p.Name + " " + p.Version, SHA256: p.SHA256, Size: p.Size,
			URLs: suffixed(b.Mirrors.URLs(p.Archive, b.Lock.Timestamp), p.Filename),
		})
	}
	b.files, err = b.Downloads.FetchAll(ctx, blobs)
	return err
}

func (b *build) unpack(ctx context.Context) (err error) {
	for _, t := range []**tree{&b.root, &b.kernel, &b.stub, &b.early} {
		if *t, err = newTree(b.tmp); err != nil {
			return err
		}
	}
	for i, p := range b.Lock.Packages[b.Arch] {
		if err := ctx.Err(); err != nil {
			return err
		}
		into, spec := b.root, b.Spec
		switch p.Role {
		case roleKernel:
			into, spec = b.kernel, &Spec{}
		case roleStub:
			into, spec = b.stub, &Spec{}
		}
		licences, err := into.addPackage(spec, p.Name, b.files[i])
		if err != nil {
			return err
		}
		b.manifest.Components = append(b.manifest.Components, Component{
			Name: p.Name, Version: p.Version, Origin: "debian", Source: p.Source, SHA256: p.SHA256, Licences: licences,
		})
	}
	return b.unpackEngine()
}

// unpackEngine puts the bundle into the root, each file checked against the bundle's manifest.
func (b *build) unpackEngine() error {
	f, err := os.Open(b.Engine)
	if err != nil {
		return fmt.Errorf("open engine bundle: %w", err)
	}
	defer f.Close()
	r, err := archive.NewReader(b.Engine, f)
	if err != nil {
		return err
	}
	defer r.Close()
	m := r.Manifest()
	if m.Arch != b.Arch || m.OS != "linux" {
		return fmt.Errorf("engine bundle %q is for %s/%s, not linux/%s", b.Engine, m.OS, m.Arch, b.Arch)
	}
	dir := filepath.Join(b.tmp, "engine")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := r.Unpack(dir); err != nil {
		return err
	}
	for _, file := range m.Files {
		if err := b.root.addFile(path.Join(enginePath, enginePlace(file.Path)), file.FileMode(), filepath.Join(dir, filepath.FromSlash(file.Path))); err != nil {
			return err
		}
	}
	b.manifest.Engine = m.Version
	for _, c := range m.Components {
		b.manifest.Components = append(b.manifest.Components, Component{Name: c.Name, Version: c.Version, Origin: "engine", Source: c.Module, Licences: []string{c.License}})
	}
	return os.RemoveAll(dir)
}

// enginePlace keeps programs in bin/ and moves the rest, licences above all, out of the way.
func enginePlace(p string) string {
	if strings.HasPrefix(p, "bin/") {
		return p
	}
	return path.Join("share/engine", p)
}

// addFile adds a file of the host.
func (t *tree) addFile(p string, mode fs.FileMode, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return t.write(p, mode, 0, 0, f, info.Size())
}

// modules chooses the modules of the root and of the initial RAM disk, with the tables by which the guest loads them.
func (b *build) modules(context.Context) error {
	kernels := b.kernel.glob("boot/vmlinuz-", "")
	if len(kernels) != 1 {
		return fmt.Errorf("the kernel package has %d kernels", len(kernels))
	}
	b.version = strings.TrimPrefix(kernels[0], "boot/vmlinuz-")
	b.manifest.Kernel = b.version
	var err error
	if b.set, err = newModuleSet(b.kernel, "usr/lib/modules/"+b.version); err != nil {
		return err
	}
	for _, part := range []struct {
		into     *tree
		patterns []string
		aliases  bool
	}{{b.root, append(b.Spec.Kernel.Modules, b.Spec.Kernel.Early...), true}, {b.early, b.Spec.Kernel.Early, false}} {
		list, err := b.set.choose(part.patterns, false)
		if err != nil {
			return err
		}
		if err := copyModules(b.kernel, part.into, list); err != nil {
			return err
		}
		if err := part.into.text(indexPath, 0o644, moduleIndex(list, b.set.builtin, part.aliases)); err != nil {
			return err
		}
	}
	return nil
}

func (b *build) rootfs(context.Context) (err error) {
	if err := b.root.addFile(guestPath, 0o755, b.Guest); err != nil {
		return fmt.Errorf("add guest program: %w", err)
	}
	if err := b.root.addSpec(b.Spec); err != nil {
		return err
	}
	b.manifest.Components = append(b.manifest.Components, Component{Name: "dev-guest", Version: fmt.Sprintf("protocol %d", b.GuestProtocol), Origin: "dev", Licences: []string{"Apache-2.0"}})
	b.manifest.RootUUID, err = b.root.writeRoot(filepath.Join(b.tmp, RootName), b.Lock.Timestamp)
	return err
}

func (b *build) bootFiles(context.Context) error {
	kernel, err := b.kernel.read("boot/vmlinuz-" + b.version)
	if err != nil {
		return err
	}
	if kernel, err = uncompressed(kernel); err != nil {
		return err
	}
	stubs := b.stub.glob("usr/lib/systemd/boot/efi/linux", ".efi.stub")
	if len(stubs) != 1 {
		return fmt.Errorf("package %q has %d EFI stubs", b.Spec.Stub, len(stubs))
	}
	stub, err := b.stub.read(stubs[0])
	if err != nil {
		return err
	}
	if err := b.early.addFile("init", 0o755, b.Guest); err != nil {
		return fmt.Errorf("add guest program: %w", err)
	}
	for _, dir := range []string{"dev", "proc", "sys", "root"} {
		if err := b.early.put(dir, &node{mode: fs.ModeDir | 0o755}); err != nil {
			return err
		}
	}
	var initrd bytes.Buffer
	if err := b.early.writeInitrd(&initrd); err != nil {
		return err
	}
	return errors.Join(
		writeFile(b.tmp, KernelName, kernel), writeFile(b.tmp, InitrdName, initrd.Bytes()), writeFile(b.tmp, StubName, stub))
}

// uncompressed unpacks an arm64 kernel that Debian may ship gzip-compressed: boot loaders without a decompressor (vfkit) take only the plain one.
func uncompressed(kernel []byte) ([]byte, error) {
	if !bytes.HasPrefix(kernel, []byte{0x1f, 0x8b}) {
		return kernel, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(kernel))
	if err != nil {
		return nil, fmt.Errorf("unpack kernel: %w", err)
	}
	return io.ReadAll(io.LimitReader(z, 256<<20))
}

// finish writes bill of materials, disk and manifest.
func (b *build) finish(context.Context) error {
	bill, err := sbom(b.manifest)
	if err != nil {
		return err
	}
	if err := writeFile(b.tmp, SBOMName, bill); err != nil {
		return err
	}
	for _, name := range imageFiles {
		f, err := describeFile(b.tmp, name)
		if err != nil {
			return err
		}
		b.manifest.Files = append(b.manifest.Files, f)
	}
	if !b.NoDisk {
		if err := MakeDisk(b.tmp, b.manifest, filepath.Join(b.tmp, DiskName)); err != nil {
			return err
		}
		disk, err := describeFile(b.tmp, DiskName)
		if err != nil {
			return err
		}
		b.manifest.Disk = &disk
	}
	data, err := b.manifest.encode()
	if err != nil {
		return err
	}
	return writeFile(b.tmp, ManifestName, data)
}

// MakeDisk makes the UEFI disk of the image in dir as the file name.
func MakeDisk(dir string, m *Manifest, name string) error {
	parts := map[string][]byte{}
	for _, part := range []string{StubName, KernelName, InitrdName} {
		data, err := os.ReadFile(filepath.Join(dir, part))
		if err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
		parts[part] = data
	}
	uki, err := buildUKI(parts[StubName], []ukiSection{
		{".osrel", []byte("ID=dev\nNAME=dev\nPRETTY_NAME=dev\n")},
		{".cmdline", []byte(m.Cmdline)},
		{".uname", []byte(m.Kernel)},
		{".initrd", parts[InitrdName]},
		{".linux", parts[KernelName]}, // last: the kernel may use the space behind it while it unpacks itself
	})
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := writeDisk(name, m.Arch, m.RootUUID, uki, filepath.Join(dir, RootName)); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

func writeFile(dir, name string, data []byte) error {
	return atomicfile.Write(filepath.Join(dir, name), data, 0o644)
}

// install moves a finished image into its place: a manifest is there only beside the files it lists.
func install(tmp, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make image folder: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, ManifestName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace image: %w", err)
	}
	for _, name := range append(append([]string{}, imageFiles...), DiskName, ManifestName) {
		err := os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name))
		if name == DiskName && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("install image: %w", err)
		}
		if name == ManifestName || name == RootName {
			if err := atomicfile.SyncDir(dir); err != nil {
				return fmt.Errorf("install image: %w", err)
			}
		}
	}
	return nil
}
