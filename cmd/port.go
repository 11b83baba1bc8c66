// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newPortCommand(a *app) *cobra.Command {
	var protocol string
	var index int
	c := &cobra.Command{
		Use:               "port [OPTIONS] SERVICE PRIVATE_PORT",
		Short:             "Show where a container's port is published",
		GroupID:           groupLook,
		Args:              takes(2, 2, "SERVICE PRIVATE_PORT"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			port, err := strconv.ParseUint(args[1], 10, 16)
			if err != nil {
				return usagef("%q is not a port", args[1])
			}
			return a.runPort(c.Context(), args[0], uint16(port), strings.ToLower(protocol), index)
		},
	}
	c.Flags().StringVar(&protocol, "protocol", "tcp", "tcp or udp")
	c.Flags().IntVar(&index, "index", 0, "`NUMBER` of the container, when the service has several")
	return c
}

func (a *app) runPort(ctx context.Context, service string, port uint16, protocol string, index int) error {
	name, err := a.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	c, err := a.findContainer(ctx, e, name, service, index)
	if err != nil {
		return err
	}
	address, ok := engine.Published(c, port, protocol)
	if !ok {
		return withHint(fmt.Errorf("no port %d/%s for container %s%s", port, protocol, c.Name, publishedList(c)),
			"publish it: ports: [\"%d\"] under service %s", port, service)
	}
	_, err = fmt.Fprintln(a.out, address)
	return err
}

// publishedList names the ports that a container does publish.
func publishedList(c compose.Container) string {
	var ports []string
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			ports = append(ports, fmt.Sprintf("%d/%s->%d", p.ContainerPort, p.Protocol, p.HostPort))
		}
	}
	if len(ports) == 0 {
		return ": it publishes none"
	}
	return ": it publishes " + strings.Join(ports, ", ")
}
