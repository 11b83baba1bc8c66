// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/seed71221737/dev/compose"
)

// PublishOptions say how a project is published.
type PublishOptions struct {
	// Version is the OCI version to write, 1.0 or 1.1; empty is 1.1, and 1.0 where the registry does not take that.
	Version string
	// Images are copied into the repository, too, and referred to by an index beside the project.
	Images []string
	// Created is the time that the artifact says; zero leaves it out.
	Created time.Time
}

// CheckReference refuses what no artifact can be called.
func CheckReference(ref string) error {
	if _, err := reference.ParseDockerRef(ref); err != nil {
		return fmt.Errorf("%q is not a repository: %w", ref, err)
	}
	return nil
}

// Publish pushes the files of a project as an OCI artifact and returns its digest.
func (f *Fetcher) Publish(ctx context.Context, ref string, files []compose.PublishedFile, o PublishOptions) (digest string, err error) {
	repo, tag, err := f.repository(ref)
	if err != nil {
		return "", err
	}
	var layers []ocispec.Descriptor
	for _, file := range files {
		d := layerOf(file)
		if err := pushBlob(ctx, repo, d, file.Content); err != nil {
			return "", registryError(repo, err)
		}
		layers = append(layers, d)
	}
	d, err := pushProject(ctx, repo, tag, layers, o)
	if err != nil {
		return "", registryError(repo, err)
	}
	if len(o.Images) > 0 {
		if err := f.pushApplication(ctx, repo, d, o.Images); err != nil {
			return "", err
		}
	}
	return d.Digest.String(), nil
}

// layerOf describes a file as docker compose does.
func layerOf(file compose.PublishedFile) ocispec.Descriptor {
	kind, note := fileType, fileNote
	if file.Kind == compose.PublishedEnv {
		kind, note = envType, envNote
	}
	d := content.NewDescriptorFromBytes(kind, file.Content)
	d.Annotations = map[string]string{versionNote: "v" + compose.DockerComposeVersion, note: file.Name}
	if file.Kind == compose.PublishedExtended {
		d.Annotations[extendsNote] = "true"
	}
	return d
}

func pushBlob(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor, data []byte) error {
	if there, err := repo.Blobs().Exists(ctx, d); err == nil && there {
		return nil
	}
	return repo.Blobs().Push(ctx, d, bytes.NewReader(data))
}

// pushProject pushes the manifest in the version that was asked for, or in the newest that the registry takes.
func pushProject(ctx context.Context, repo *remote.Repository, tag string, layers []ocispec.Descriptor, o PublishOptions) (ocispec.Descriptor, error) {
	versions := []string{o.Version}
	if o.Version == "" {
		versions = []string{"1.1", "1.0"}
	}
	var d ocispec.Descriptor
	var err error
	for _, version := range versions {
		if d, err = pushManifest(ctx, repo, tag, layers, version, o.Created); err == nil || !refusedForm(err) {
			break
		}
	}
	return d, err
}

// refusedForm reports that a registry did not take a manifest for what it is, rather than for who sent it.
func refusedForm(err error) bool {
	var answer *errcode.ErrorResponse
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return false
	}
	return answer.StatusCode >= 400 && answer.StatusCode < 500
}

func pushManifest(ctx context.Context, repo *remote.Repository, tag string, layers []ocispec.Descriptor, version string, created time.Time) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: projectType,
		Config: ocispec.DescriptorEmptyJSON, Layers: layers,
	}
	m.Config.Data = nil
	if version == "1.0" {
		m.ArtifactType, m.Config.MediaType = "", emptyConfigType
	}
	if !created.IsZero() {
		m.Annotations = map[string]string{ocispec.AnnotationCreated: created.UTC().Format(time.RFC3339)}
	}
	if err := pushBlob(ctx, repo, m.Config, []byte("{}")); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := content.NewDescriptorFromBytes(m.MediaType, data)
	d.ArtifactType = m.ArtifactType
	return d, repo.Manifests().PushReference(ctx, d, bytes.NewReader(data), tag)
}

// pushApplication copies images into the project's repository, and pushes an index of them that has the project as its subject.
func (f *Fetcher) pushApplication(ctx context.Context, repo *remote.Repository, project ocispec.Descriptor, images []string) error {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Subject: &project,
		Annotations: map[string]string{versionNote: "v" + compose.DockerComposeVersion},
	}
	for _, image := range images {
		from, ref, err := f.repository(image)
		if err != nil {
			return err
		}
		d, err := oras.Copy(ctx, from, ref, repo, "", oras.DefaultCopyOptions)
		if err != nil {
			return fmt.Errorf("copy image %s: %w", image, registryError(from, err))
		}
		index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	d := content.NewDescriptorFromBytes(index.MediaType, data)
	return registryError(repo, repo.Manifests().Push(ctx, d, bytes.NewReader(data)))
}
