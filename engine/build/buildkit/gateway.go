// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/client"
)

// gatewayLabel is where the engine's builder tells the address that host-gateway stands for (moby/moby daemon/internal/builder-next/worker).
const gatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// setHostGateway asks the engine for the address of host-gateway and puts it into the extra hosts.
func (r *request) setHostGateway(ctx context.Context, conn *client.Client) error {
	workers, err := conn.ListWorkers(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine's builder for the address of host-gateway: %w", err)
	}
	for _, w := range workers {
		if ip := w.Labels[gatewayLabel]; ip != "" {
			r.setHosts(ip)
			return nil
		}
	}
	return errors.New("build.extra_hosts: this engine's builder has no address for host-gateway")
}
