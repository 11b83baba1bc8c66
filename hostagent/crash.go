// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package hostagent

import "errors"

// ErrCrashed is in a VM's Err where its process ended by a fault of its own, as a wild pointer, and neither by an order nor with a complaint.
var ErrCrashed = errors.New("it crashed")
