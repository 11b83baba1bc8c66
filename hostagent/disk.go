// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import (
	"context"
	"net/http"
	"strconv"
)

// GrowDisk makes the data disk of a machine so many bytes large while it runs, and the file system on it, and wakes a machine that sleeps. A *RefusedError
// says that this needs a start of the machine, or a newer image.
func (c *Client) GrowDisk(ctx context.Context, bytes int64) error {
	res, err := c.do(ctx, http.MethodPost, "/v1/grow-disk?bytes="+strconv.FormatInt(bytes, 10), nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
