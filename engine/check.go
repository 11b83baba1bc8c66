// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"

	"github.com/seed71221737/dev/compose"
)

// BuildCheck is what looking a Dockerfile over found.
type BuildCheck struct {
	// Report is for the user to read.
	Report string
	// Flawed tells that something was found.
	Flawed bool
}

// Checker is a [Builder] that can look a Dockerfile over without building it.
type Checker interface {
	Check(ctx context.Context, spec compose.BuildSpec) (BuildCheck, error)
}

// CheckBuild looks over what would be built.
func (c *Client) CheckBuild(ctx context.Context, spec compose.BuildSpec) (BuildCheck, error) {
	b, err := c.builder()
	if err != nil {
		return BuildCheck{}, err
	}
	checker, ok := b.(Checker)
	if !ok {
		return BuildCheck{}, errors.New("this builder has no checks")
	}
	return checker.Check(ctx, spec)
}
