// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !bundle || !linux || !(amd64 || arm64)

package native

// embedded is the bundle that release builds carry (build tag bundle).
var embedded []byte
