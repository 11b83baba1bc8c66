// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// health converts the health check; nil leaves the image's own.
func (c conversion) health() (*container.HealthConfig, error) {
	check := c.s.HealthCheck
	if check == nil {
		return nil, nil
	}
	if check.Disable {
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if check.StartInterval != nil && check.StartPeriod == nil {
		return nil, c.failf("healthcheck.start_interval", "has no effect without start_period")
	}
	health := &container.HealthConfig{
		Test:          check.Test,
		Interval:      duration(check.Interval),
		Timeout:       duration(check.Timeout),
		StartPeriod:   duration(check.StartPeriod),
		StartInterval: duration(check.StartInterval),
	}
	if check.Retries != nil {
		health.Retries = int(*check.Retries)
	}
	for field, d := range map[string]time.Duration{
		"interval": health.Interval, "timeout": health.Timeout, "start_period": health.StartPeriod, "start_interval": health.StartInterval,
	} {
		if d != 0 && d < container.MinimumDuration {
			return nil, c.failf("healthcheck."+field, "%s is less than the shortest time the engine takes, %s", d, container.MinimumDuration)
		}
	}
	return health, nil
}

// duration is d, or 0 (the engine's default) if it is not given.
func duration(d *types.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(*d)
}
