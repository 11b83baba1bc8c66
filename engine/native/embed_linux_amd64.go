// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build bundle

package native

import _ "embed"

// embedded is the bundle that release builds carry. The file is made by
// `make bundle` and copied here by `make build`; git ignores it.
//
//go:embed engine-linux-amd64.tar.zst
var embedded []byte
