// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// How an image looks in a registry: an index over one OCI manifest per architecture, whose config is our manifest and whose layers are the image's files,
// each compressed by itself.
const (
	artifactType   = "application/vnd.dev.machine-image.v1"
	configType     = "application/vnd.dev.machine-image.manifest.v1+json"
	layerType      = "application/vnd.dev.machine-image.file.v1+zstd"
	maxOCIManifest = 4 << 20
)

// Remote is a repository of images in a registry.
type Remote struct {
	repo *remote.Repository
	// Reference is a tag or digest.
	Reference string
	Name      string
	// Progress may be nil.
	Progress Progress
	// Cache is a folder for files on their way, which a transfer that was cut off goes on with.
	Cache string
}

// OpenRemote parses a reference such as "registry.example/team/image:tag@sha256:…" (a digest wins over a tag). Credentials are docker's; a registry on
// the loopback is spoken to without TLS, as docker does.
func OpenRemote(reference, cache string, progress Progress) (*Remote, error) {
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("parse image reference %q: %w", reference, err)
	}
	if ref.Reference == "" {
		ref.Reference = "latest"
	}
	repo, err := remote.NewRepository(ref.Registry + "/" + ref.Repository)
	if err != nil {
		return nil, fmt.Errorf("open repository %q: %w", reference, err)
	}
	host, _, _ := strings.Cut(ref.Registry, ":")
	repo.PlainHTTP = host == "localhost" || host == "127.0.0.1"
	client := &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}
	if store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{}); err == nil {
		client.Credential = credentials.Credential(store) // without docker's file: anonymous
	}
	repo.Client = client
	return &Remote{repo: repo, Reference: ref.Reference, Name: reference, Progress: progress, Cache: cache}, nil
}

func (r *Remote) report(name string, done, total int64) {
	if r.Progress != nil {
		r.Progress(name, done, total)
	}
}

// Push uploads images, one per architecture, under the remote's tag and returns the digest to pin.
func (r *Remote) Push(ctx context.Context, images []Image) (string, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: artifactType}
	for _, i := range images {
		if _, err := Verify(i.Dir); err != nil {
			return "", err
		}
		d, err := r.pushImage(ctx, i)
		if err != nil {
			return "", fmt.Errorf("push image %q: %w", i.Digest, err)
		}
		index.Manifests = append(index.Manifests, d)
	}
	slices.SortFunc(index.Manifests, func(a, b ocispec.Descriptor) int {
		return strings.Compare(a.Platform.Architecture, b.Platform.Architecture)
	})
	data, err := json.Marshal(index)
	if err != nil {
		return "", err
	}
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageIndex, data)
	if err := r.repo.PushReference(ctx, d, bytes.NewReader(data), r.Reference); err != nil {
		return "", fmt.Errorf("push %q: %w", r.Name, err)
	}
	return d.Digest.String(), nil
}

func (r *Remote) pushImage(ctx context.Context, i Image) (ocispec.Descriptor, error) {
	config, err := os.ReadFile(filepath.Join(i.Dir, ManifestName))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: content.NewDescriptorFromBytes(configType, config),
	}
	if err := r.pushBlob(ctx, m.Config, bytes.NewReader(config), ManifestName); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, name := range imageFiles {
		d, err := r.pushFile(ctx, i.Dir, name)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, data)
	if err := r.pushBlob(ctx, d, bytes.NewReader(data), "manifest"); err != nil {
		return ocispec.Descriptor{}, err
	}
	d.ArtifactType = artifactType
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: i.Manifest.Arch}
	return d, nil
}

// pushFile compresses a file aside and uploads it.
func (r *Remote) pushFile(ctx context.Context, dir, name string) (_ ocispec.Descriptor, err error) {
	if err := os.MkdirAll(r.Cache, 0o755); err != nil {
		return ocispec.Descriptor{}, err
	}
	tmp, err := os.CreateTemp(r.Cache, ".tmp-push-*")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	d, err := compress(tmp, filepath.Join(dir, name))
	if err != nil {
		return d, fmt.Errorf("compress %q: %w", name, err)
	}
	d.Annotations = map[string]string{ocispec.AnnotationTitle: name}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return d, err
	}
	return d, r.pushBlob(ctx, d, tmp, name)
}

// compress writes a file's compressed form: the same bytes each time.
func compress(w io.Writer, name string) (ocispec.Descriptor, error) {
	f, err := os.Open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	sum := digest.SHA256.Digester()
	counted := &countingWriter{w: io.MultiWriter(w, sum.Hash())}
	z, err := zstd.NewWriter(counted, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := io.Copy(z, f); err != nil {
		return ocispec.Descriptor{}, errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: layerType, Digest: sum.Digest(), Size: counted.n}, nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// pushBlob uploads what the registry does not have.
func (r *Remote) pushBlob(ctx context.Context, d ocispec.Descriptor, body io.Reader, name string) error {
	there, err := r.repo.Exists(ctx, d)
	if err == nil && there {
		r.report(name, d.Size, d.Size)
		return nil
	}
	report := &reportingReader{r: body, f: func(n int64) { r.report(name, n, d.Size) }}
	if err := r.repo.Push(ctx, d, report); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		return fmt.Errorf("upload %q: %w", name, err)
	}
	return nil
}

type reportingReader struct {
	r io.Reader
	n int64
	f func(int64)
}

func (r *reportingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	r.f(r.n)
	return n, err
}

// Pull downloads the image for an architecture into the store, under a tag, and returns it. Files that are here are not downloaded; everything is
// verified before it enters the store.
func (r *Remote) Pull(ctx context.Context, s *Store, arch, tag string) (Image, error) {
	i, err := r.pull(ctx, s, arch, tag)
	if err != nil {
		return i, fmt.Errorf("pull %q for %q: %w", r.Name, arch, err)
	}
	return i, nil
}

func (r *Remote) pull(ctx context.Context, s *Store, arch, tag string) (_ Image, err error) {
	m, config, err := r.manifests(ctx, arch)
	if err != nil {
		return Image{}, err
	}
	if have, err := s.Find(digest.FromBytes(config).Encoded(), ""); err == nil && have.Problem == nil {
		return have, s.locked(ctx, func() error { return s.tag(tag, arch, have.Digest) })
	}
	dir, err := s.Workspace()
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := r.files(ctx, m, config, arch, dir); err != nil {
		return Image{}, err
	}
	return s.Add(ctx, dir, tag)
}

// manifests fetches the OCI manifest for an architecture and our manifest in it.
func (r *Remote) manifests(ctx context.Context, arch string) (*ocispec.Manifest, []byte, error) {
	root, err := r.repo.Resolve(ctx, r.Reference)
	if err != nil {
		return nil, nil, err
	}
	var index ocispec.Index
	if err := r.fetchJSON(ctx, root, &index); err != nil {
		return nil, nil, err
	}
	at := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Platform != nil && d.Platform.Architecture == arch })
	if at < 0 || index.ArtifactType != artifactType {
		return nil, nil, errors.New("it holds no machine image for this architecture")
	}
	var m ocispec.Manifest
	if err := r.fetchJSON(ctx, index.Manifests[at], &m); err != nil {
		return nil, nil, err
	}
	if m.Config.MediaType != configType || m.Config.Size > maxOCIManifest {
		return nil, nil, errors.New("it is no machine image")
	}
	config, err := content.FetchAll(ctx, r.repo, m.Config)
	return &m, config, err
}

func (r *Remote) fetchJSON(ctx context.Context, d ocispec.Descriptor, v any) error {
	if d.Size > maxOCIManifest {
		return fmt.Errorf("manifest %s has %d bytes, %d are the most", d.Digest, d.Size, maxOCIManifest)
	}
	data, err := content.FetchAll(ctx, r.repo, d) // checks the digest
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// files downloads and unpacks the layers, several at once.
func (r *Remote) files(ctx context.Context, m *ocispec.Manifest, config []byte, arch, dir string) error {
	ours, err := ParseManifest(r.Name, config)
	if err != nil {
		return err
	}
	if ours.Arch != arch {
		return fmt.Errorf("the image is for %q", ours.Arch)
	}
	if err := os.WriteFile(filepath.Join(dir, ManifestName), config, 0o644); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	for _, d := range m.Layers {
		name := d.Annotations[ocispec.AnnotationTitle]
		if !slices.Contains(imageFiles, name) || d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("layer %q is no file of an image", name)
		}
		g.Go(func() error {
			if err := r.file(ctx, d, filepath.Join(dir, name), ours.File(name).Size); err != nil {
				return fmt.Errorf("get %q: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// file downloads one layer and unpacks it to exactly size bytes; Store.Add checks the digest of the result.
func (r *Remote) file(ctx context.Context, d ocispec.Descriptor, out string, size int64) (err error) {
	name, err := r.download(ctx, d)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(64<<20), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	w, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	n, err := io.Copy(w, io.LimitReader(z, size+1))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("it unpacks to %d bytes or more, the manifest says %d", n, size)
	}
	if err := w.Sync(); err != nil {
		return err
	}
	return os.Remove(name) // the image has it now
}

// download fetches a layer into the cache, going on where an earlier transfer was cut off, and verifies it.
func (r *Remote) download(ctx context.Context, d ocispec.Descriptor) (_ string, err error) {
	if err := os.MkdirAll(r.Cache, 0o755); err != nil {
		return "", err
	}
	name := filepath.Join(r.Cache, d.Digest.Encoded()+".layer")
	lock := flock.New(name + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum, have, err := hashPrefix(f, d.Size)
	if err != nil {
		return "", err
	}
	if have < d.Size {
		if err := r.continueAt(ctx, d, f, sum, have); err != nil {
			return "", err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != d.Digest.Encoded() {
		return "", errors.Join(fmt.Errorf("it has SHA-256 %s, expected %s", got, d.Digest.Encoded()), f.Truncate(0))
	}
	return name, nil
}

func (r *Remote) continueAt(ctx context.Context, d ocispec.Descriptor, f *os.File, sum hasher, have int64) error {
	body, err := r.repo.Blobs().Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	if seeker, ok := body.(io.Seeker); have > 0 && ok {
		if _, err := seeker.Seek(have, io.SeekStart); err != nil {
			return err
		}
	} else if have > 0 { // the registry knows no ranges
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		sum.Reset()
		have = 0
	}
	_, err = copyAll(io.MultiWriter(f, sum), io.LimitReader(body, d.Size-have), func(n int64) { r.report(d.Annotations[ocispec.AnnotationTitle], have+n, d.Size) })
	return err
}
