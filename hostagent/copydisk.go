// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"context"
	"net/url"
)

// DiskCopier is a VM whose data disk can be copied while it runs.
type DiskCopier interface {
	// CopyDisk writes the data disk as it is at one moment to a file that does not exist, and syncs it. settle is called just before that moment, for the
	// guest to write what it keeps in memory. On an error, and when ctx ends, the file is gone; the VM runs on in any case.
	CopyDisk(ctx context.Context, to string, settle func(context.Context) error) error
}

// CopyDisk has the agent copy the machine's data disk as it is at one moment, to a file that does not exist, and waits for the end. When ctx ends, so does
// the copying, and the file is gone.
func (c *Client) CopyDisk(ctx context.Context, to string) error {
	return c.post(ctx, "/v1/copy-disk?"+url.Values{"to": {to}}.Encode())
}
