// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/machine"
)

// machineContainers looks after the containers of machines in upgrades, through their engines.
type machineContainers struct{}

var _ machine.Containers = machineContainers{}

func (machineContainers) Running(ctx context.Context, endpoint string) ([]machine.Container, error) {
	c, err := client.New(client.WithHost(endpoint))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	found, err := c.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return nil, err
	}
	var list []machine.Container
	for _, one := range found.Items {
		name := one.ID
		if len(one.Names) > 0 {
			name = strings.TrimPrefix(one.Names[0], "/")
		}
		list = append(list, machine.Container{ID: one.ID, Name: name})
	}
	return list, nil
}

// Resume starts those that are not running, in the order in which they were created, as the engine lists them: what others need comes first more often
// than not, and one that gives up for want of another is told of.
func (machineContainers) Resume(ctx context.Context, endpoint string, list []machine.Container) (warnings []string, err error) {
	c, err := client.New(client.WithHost(endpoint))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var errs []error
	for i := range list {
		one := list[len(list)-1-i] // the engine lists the newest first
		if _, err := c.ContainerStart(ctx, one.ID, client.ContainerStartOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("container %q: %w", one.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, one := range list {
		found, err := c.ContainerInspect(ctx, one.ID, client.ContainerInspectOptions{})
		if err != nil {
			return warnings, err
		}
		if s := found.Container.State; s != nil && !s.Running && !s.Restarting {
			warnings = append(warnings, fmt.Sprintf("container %q ran before and has ended with code %d", one.Name, s.ExitCode))
		}
	}
	return warnings, nil
}
