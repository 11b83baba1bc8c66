// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/context/store"
)

// ContextName is the name of the docker context that leads to dev's engine.
const ContextName = "dev"

// ErrForeignContext says that the user has a docker context of our name that
// leads elsewhere.
var ErrForeignContext = errors.New("it leads to another engine")

// WriteContext makes the docker context ContextName for the engine that dev
// carries, as WriteContextNamed does.
func (d Docker) WriteContext(host string) (created bool, err error) {
	return d.WriteContextNamed(ContextName, "the engine that dev carries", host)
}

// WriteContextNamed makes a docker context, so that the docker CLI and what
// understands its contexts can use the engine at host. It says whether there
// was none before. A context of that name that leads elsewhere is left alone
// and is an error that wraps ErrForeignContext.
func (d Docker) WriteContextNamed(name, description, host string) (created bool, err error) {
	switch e, err := d.readContext(name); {
	case err == nil && e.Host == host:
		return false, nil
	case err == nil:
		return false, &ContextError{Name: name, Err: fmt.Errorf("%w (%s)", ErrForeignContext, e.Host)}
	case !errdefs.IsNotFound(err):
		return false, &ContextError{Name: name, Err: err}
	}
	err = d.store().CreateOrUpdate(store.Metadata{
		Name:      name,
		Metadata:  contextMeta{Description: description},
		Endpoints: map[string]any{dockerEndpoint: contextEndpoint{Host: host}},
	})
	if err != nil {
		return false, fmt.Errorf("make docker context %q: %w", name, err)
	}
	return true, nil
}

// RemoveContext removes the docker context that WriteContext made, as
// RemoveContextNamed does.
func (d Docker) RemoveContext(host string) (removed bool, err error) {
	return d.RemoveContextNamed(ContextName, host)
}

// RemoveContextNamed removes a docker context that leads to host. One that
// leads elsewhere is left alone, and so is one that is not there.
func (d Docker) RemoveContextNamed(name, host string) (removed bool, err error) {
	e, err := d.readContext(name)
	if errdefs.IsNotFound(err) || err == nil && e.Host != host {
		return false, nil
	}
	if err != nil {
		return false, &ContextError{Name: name, Err: err}
	}
	if err := d.store().Remove(name); err != nil {
		return false, fmt.Errorf("remove docker context %q: %w", name, err)
	}
	return true, nil
}

// Contexts are docker's contexts, with name and address; one that cannot be
// read is left out.
func (d Docker) Contexts() ([]Engine, error) {
	list, err := d.store().List()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list docker contexts: %w", err)
	}
	var all []Engine
	for _, c := range list {
		if e, err := d.readContext(c.Name); err == nil {
			all = append(all, e)
		}
	}
	return all, nil
}
