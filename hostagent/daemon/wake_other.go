// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux

package daemon

import "context"

// watchWake tells when the host has slept.
func watchWake(ctx context.Context, woken chan<- struct{}) { pollWake(ctx, woken) }
