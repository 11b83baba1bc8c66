// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build pins

package main

// The programs of the bundle: imported nowhere, they stand here so that
// go.mod and go.sum keep what is needed to build them.
import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/moby/moby/v2/cmd/docker-proxy"
	_ "github.com/moby/moby/v2/cmd/dockerd"
	_ "github.com/opencontainers/runc"
)
