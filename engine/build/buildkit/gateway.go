// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/client"

	"github.com/seed71221737/dev/engine/build/wire"
)

// gatewayLabel is where the engine's builder tells the address that host-gateway stands for (moby/moby daemon/internal/builder-next/worker).
const gatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// setHostGateway asks the engine for the address of host-gateway and puts it into the extra hosts.
func setHostGateway(ctx context.Context, conn *client.Client, r *wire.Request) error {
	workers, err := conn.ListWorkers(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine's builder for the address of host-gateway: %w", err)
	}
	for _, w := range workers {
		if ip := w.Labels[gatewayLabel]; ip != "" {
			r.Attrs["add-hosts"] = replaceHost(r.Attrs["add-hosts"], r.HostGateway, ip)
			return nil
		}
	}
	return errors.New("build.extra_hosts: this engine's builder has no address for host-gateway")
}

// replaceHost gives all names=word in a list of hosts an address.
func replaceHost(hosts, word, address string) string {
	all := strings.Split(hosts, ",")
	for i, h := range all {
		if name, ok := strings.CutSuffix(h, "="+word); ok {
			all[i] = name + "=" + address
		}
	}
	return strings.Join(all, ",")
}
