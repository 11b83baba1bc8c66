// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/seed71221737/dev/compose"
)

// pullImage pulls an image and returns its ID.
func (t *task) pullImage(ctx context.Context) (compose.Result, error) {
	spec := t.op.Image
	named, err := reference.ParseNormalizedNamed(spec.Ref)
	if err != nil {
		return compose.Result{}, fmt.Errorf("image %q: %w", spec.Ref, err)
	}
	platform, err := parsePlatform(spec.Platform)
	if err != nil {
		return compose.Result{}, err
	}
	o := client.ImagePullOptions{RegistryAuth: t.registryAuth(reference.Domain(named))}
	if platform != nil {
		o.Platforms = []ocispec.Platform{*platform}
	}
	stream, err := t.api.ImagePull(ctx, spec.Ref, o)
	if err != nil {
		return compose.Result{}, pullError(reference.Domain(named), t.explain(err))
	}
	for m, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return compose.Result{}, fmt.Errorf("read the engine's answer: %w", err)
		}
		if m.Error != nil {
			return compose.Result{}, pullError(reference.Domain(named), m.Error)
		}
		t.progress(pullEvent(m))
	}
	found, err := inspectImage(ctx, t.api, spec.Ref)
	return compose.Result{ID: found.ID}, err
}

// registryAuth is the header with the registry's credentials. What is wrong with them is warned of once.
func (t *task) registryAuth(host string) string {
	found, err := t.registries.auth(host)
	if err != nil && t.registries.firstTime(err.Error()) {
		t.warn(err.Error())
	}
	header, err := authconfig.Encode(found)
	if err != nil {
		return ""
	}
	return header
}

// pullEvent converts one message of a pull.
func pullEvent(m jsonstream.Message) compose.Event {
	e := compose.Event{Text: m.Status, Part: m.ID}
	if m.Progress != nil {
		e.Current, e.Total = m.Progress.Current, m.Progress.Total
	}
	return e
}

// pullError adds what to do about a pull that failed.
func pullError(registry string, err error) error {
	var refused *jsonstream.Error
	denied := errors.As(err, &refused) && (refused.Code == 401 || refused.Code == 403)
	switch {
	case denied, errdefs.IsUnauthorized(err), says(err, "pull access denied", "unauthorized", "no basic auth credentials", "authentication required"):
		if registry == "docker.io" {
			return withHint(err, "check the image's name; if it is private: docker login")
		}
		return withHint(err, "check the image's name; if it is private: docker login %s", registry)
	case says(err, "manifest unknown", "not found"):
		return withHint(err, "check the image's name and tag")
	case says(err, "no matching manifest", "does not match the specified platform"):
		return withHint(err, "the image is not made for this platform: choose another tag, or set the service's platform")
	case says(err, "no such host", "i/o timeout", "connection refused", "network is unreachable", "tls handshake timeout"):
		return withHint(err, "check that the engine reaches %s; proxies and mirrors are set in ~/.dev/config.yaml", registry)
	}
	return err
}

// removeImage removes an image's name, and the image with its last name.
func (t *task) removeImage(ctx context.Context) error {
	_, err := t.api.ImageRemove(ctx, t.op.Image.Ref, client.ImageRemoveOptions{PruneChildren: true, Force: t.op.Force})
	if gone(err) {
		return nil
	}
	return err
}
