// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"
)

const (
	ociVariable = "COMPOSE_EXPERIMENTAL_OCI_REMOTE"
	ociPrefix   = "oci://"
)

// How docker compose writes a project as an OCI artifact.
const (
	projectType = "application/vnd.docker.compose.project"
	fileType    = "application/vnd.docker.compose.file+yaml"
	envType     = "application/vnd.docker.compose.envfile"
	// emptyConfigType marks the artifact where manifests have no artifact type: OCI 1.0.
	emptyConfigType = "application/vnd.docker.compose.config.empty.v1+json"

	versionNote = "com.docker.compose.version"
	fileNote    = "com.docker.compose.file"
	envNote     = "com.docker.compose.envfile"
	extendsNote = "com.docker.compose.extends"
)

// Bounds for what a registry sends.
const (
	maxManifest = 4 << 20
	maxFile     = 16 << 20
	maxFiles    = 512
)

// isOCI reports whether an address is that of an artifact in a registry.
func isOCI(address string) bool { return strings.HasPrefix(address, ociPrefix) }

// oci fetches an artifact and returns the Compose file in it.
func (f *Fetcher) oci(ctx context.Context, address string) (string, error) {
	if err := f.allowed(ociVariable); err != nil {
		return "", err
	}
	repo, ref, err := f.repository(strings.TrimPrefix(address, ociPrefix))
	if err != nil {
		return "", err
	}
	if f.o.Offline {
		return "", errors.New("registries are not asked now")
	}
	d, err := repo.Resolve(ctx, ref)
	if err != nil {
		return "", registryError(repo, err)
	}
	dir, err := f.keep(filepath.Join("oci", d.Digest.Encoded()), func(dir string) error { return fetchProject(ctx, repo, d, dir) })
	if err != nil {
		return "", err
	}
	return composeFile(dir, "compose.yaml")
}

// repository opens the repository of a reference as docker writes them: docker.io and latest are the defaults.
func (f *Fetcher) repository(text string) (repo *remote.Repository, ref string, err error) {
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return nil, "", fmt.Errorf("reference %q: %w", text, err)
	}
	repo, err = remote.NewRepository(named.Name())
	if err != nil {
		return nil, "", fmt.Errorf("reference %q: %w", text, err)
	}
	host := reference.Domain(named)
	repo.PlainHTTP = isLoopback(host) || slices.Contains(f.o.Insecure, host)
	c := &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}
	if store, err := credentials.NewStore(filepath.Join(f.o.DockerDir, "config.json"), credentials.StoreOptions{}); err == nil {
		c.Credential = credentials.Credential(store)
	} else {
		f.o.Logger.Warn("read registry credentials", "error", err)
	}
	repo.Client = c
	switch r := named.(type) {
	case reference.Digested:
		ref = r.Digest().String()
	case reference.Tagged:
		ref = r.Tag()
	}
	return repo, ref, nil
}

func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// fetchProject writes the files of an artifact into a folder.
func fetchProject(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor, dir string) error {
	m, err := fetchManifest(ctx, repo, d)
	if err != nil {
		return err
	}
	var files [][]byte
	for _, layer := range m.Layers {
		file := layer.Annotations[fileNote]
		switch {
		case layer.MediaType == fileType && layer.Annotations[extendsNote] == "":
			file = ""
		case layer.MediaType == fileType:
		case layer.MediaType == envType:
			file = layer.Annotations[envNote]
		default:
			continue
		}
		if layer.Size > maxFile {
			return fmt.Errorf("a file in it has %d bytes: %d are the most", layer.Size, maxFile)
		}
		data, err := content.FetchAll(ctx, repo.Blobs(), layer)
		if err != nil {
			return registryError(repo, err)
		}
		if layer.MediaType == fileType && file == "" {
			files = append(files, data)
			continue
		}
		if err := writePart(dir, file, data); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return errors.New("there is no Compose file in it")
	}
	return os.WriteFile(filepath.Join(dir, "compose.yaml"), slices.Concat(joined(files)...), 0o600)
}

// joined makes one stream of YAML documents: the later ones override the earlier.
func joined(files [][]byte) (parts [][]byte) {
	for i, f := range files {
		if i > 0 {
			parts = append(parts, []byte("\n---\n"))
		}
		parts = append(parts, f)
	}
	return parts
}

// writePart writes a file beside the Compose file. Its name comes from who made the artifact: it must be a plain one.
func writePart(dir, name string, data []byte) error {
	if name == "" || name == "." || name == ".." || name == "compose.yaml" || strings.ContainsAny(name, "/\\:\x00") || !filepath.IsLocal(name) {
		return fmt.Errorf("a file in it is called %q, which none may be", name)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// fetchManifest gets the manifest of a project. An application that was published with its images is an index, which has the project's manifest as
// its subject, or among its manifests.
func fetchManifest(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == "application/vnd.docker.distribution.manifest.list.v2+json" {
		var index ocispec.Index
		if err := fetchJSON(ctx, repo, d, &index); err != nil {
			return m, err
		}
		i := slices.IndexFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.ArtifactType == projectType })
		switch {
		case i >= 0:
			d = index.Manifests[i]
		case index.Subject != nil && index.Subject.ArtifactType == projectType:
			d = *index.Subject
		default:
			return m, errors.New("it is no Compose project but an image index")
		}
	}
	if err := fetchJSON(ctx, repo, d, &m); err != nil {
		return m, err
	}
	switch {
	case m.ArtifactType != projectType && (m.ArtifactType != "" || m.Config.MediaType != emptyConfigType):
		kind := m.ArtifactType
		if kind == "" {
			kind = m.Config.MediaType
		}
		return m, fmt.Errorf("it is no Compose project but %q", kind)
	case len(m.Layers) > maxFiles:
		return m, fmt.Errorf("it has %d files: %d are the most", len(m.Layers), maxFiles)
	}
	return m, nil
}

func fetchJSON(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor, into any) error {
	if d.Size > maxManifest {
		return fmt.Errorf("its manifest has %d bytes: %d are the most", d.Size, maxManifest)
	}
	data, err := content.FetchAll(ctx, repo, d)
	if err != nil {
		return registryError(repo, err)
	}
	return json.Unmarshal(data, into)
}

// registryError says what to do about a registry's refusal.
func registryError(repo *remote.Repository, err error) error {
	var answer *errcode.ErrorResponse
	switch host := repo.Reference.Registry; {
	case err == nil:
		return nil
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden),
		errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &hinted{fmt.Errorf("%s does not let you: %w", host, err), "docker login " + host}
	case errors.Is(err, errdef.ErrNotFound):
		return &hinted{fmt.Errorf("%s has no such artifact", host), "check its name and tag"}
	}
	return err
}
