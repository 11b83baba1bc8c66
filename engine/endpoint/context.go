// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/context/store"
)

// ContextName is the name of the docker context that leads to dev's engine.
const ContextName = "dev"

// ErrForeignContext says that the user has a docker context of our name that
// leads elsewhere.
var ErrForeignContext = errors.New("it leads to another engine")

// WriteContext makes the docker context ContextName, so that the docker CLI and
// what understands its contexts can use the engine at host. It says whether
// there was none before. A context of that name that leads elsewhere is left
// alone and is an error that wraps ErrForeignContext.
func (d Docker) WriteContext(host string) (created bool, err error) {
	switch e, err := d.readContext(ContextName); {
	case err == nil && e.Host == host:
		return false, nil
	case err == nil:
		return false, &ContextError{Name: ContextName, Err: fmt.Errorf("%w (%s)", ErrForeignContext, e.Host)}
	case !errdefs.IsNotFound(err):
		return false, &ContextError{Name: ContextName, Err: err}
	}
	err = d.store().CreateOrUpdate(store.Metadata{
		Name:      ContextName,
		Metadata:  contextMeta{Description: "the engine that dev carries"},
		Endpoints: map[string]any{dockerEndpoint: contextEndpoint{Host: host}},
	})
	if err != nil {
		return false, fmt.Errorf("make docker context %q: %w", ContextName, err)
	}
	return true, nil
}

// RemoveContext removes the docker context that WriteContext made. One that
// leads elsewhere is left alone, and so is one that is not there.
func (d Docker) RemoveContext(host string) (removed bool, err error) {
	e, err := d.readContext(ContextName)
	if errdefs.IsNotFound(err) || err == nil && e.Host != host {
		return false, nil
	}
	if err != nil {
		return false, &ContextError{Name: ContextName, Err: err}
	}
	if err := d.store().Remove(ContextName); err != nil {
		return false, fmt.Errorf("remove docker context %q: %w", ContextName, err)
	}
	return true, nil
}
