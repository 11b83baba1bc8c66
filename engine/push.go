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
)

// PushProgress is how far a layer of an image is.
type PushProgress struct {
	Layer, Text    string
	Current, Total int64 // bytes
}

// Push pushes an image to its registry with the user's credentials. progress may be nil; it is called by one goroutine at a time. warn, which may be
// nil, takes what is wrong with the credentials, once for each client.
func (c *Client) Push(ctx context.Context, ref string, progress func(PushProgress), warn func(text string)) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("image %q: %w", ref, err)
	}
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	host := reference.Domain(named)
	stream, err := api.ImagePush(ctx, ref, client.ImagePushOptions{RegistryAuth: c.authHeader(host, warn)})
	if err != nil {
		return pushError(host, ref, c.explain(err))
	}
	for m, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if m.Error != nil {
			return pushError(host, ref, m.Error)
		}
		if progress == nil || m.ID == "" {
			continue
		}
		p := PushProgress{Layer: m.ID, Text: m.Status}
		if m.Progress != nil {
			p.Current, p.Total = m.Progress.Current, m.Progress.Total
		}
		progress(p)
	}
	return nil
}

// authHeader is the header with the registry's credentials. What is wrong with them is warned of once.
func (c *Client) authHeader(host string, warn func(string)) string {
	found, err := c.registries.auth(host)
	if err != nil && warn != nil && c.registries.firstTime(err.Error()) {
		warn(err.Error())
	}
	header, err := authconfig.Encode(found)
	if err != nil {
		return ""
	}
	return header
}

// pushError adds what to do about a push that failed.
func pushError(registry, ref string, err error) error {
	var refused *jsonstream.Error
	denied := errors.As(err, &refused) && (refused.Code == 401 || refused.Code == 403)
	switch {
	case denied, errdefs.IsUnauthorized(err), says(err, "denied", "unauthorized", "no basic auth credentials", "authentication required", "insufficient_scope"):
		if registry == "docker.io" {
			return withHint(err, "log in, and check that you may push there: docker login")
		}
		return withHint(err, "log in, and check that you may push there: docker login %s", registry)
	case gone(err), says(err, "does not exist", "no such image"):
		return withHint(err, "make it first: dev build")
	case says(err, "no such host", "i/o timeout", "connection refused", "network is unreachable", "tls handshake timeout"):
		return withHint(err, "check that the engine reaches %s", registry)
	}
	return err
}

// Digest asks the registry of an image for its digest as it is there now, with the user's credentials: "sha256:…".
func (c *Client) Digest(ctx context.Context, ref string, warn func(text string)) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", ref, err)
	}
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String(), nil
	}
	api, err := c.conn(ctx)
	if err != nil {
		return "", err
	}
	host := reference.Domain(named)
	r, err := api.DistributionInspect(ctx, reference.TagNameOnly(named).String(), client.DistributionInspectOptions{EncodedRegistryAuth: c.authHeader(host, warn)})
	if err != nil {
		return "", pullError(host, c.explain(err))
	}
	return r.Descriptor.Digest.String(), nil
}
