// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

// machineEngine is the engine of the machine in use, for package endpoint; nil where none is in use.
func (a *app) machineEngine(context.Context) (*endpoint.Engine, error) {
	one, err := a.machines().used()
	if err != nil || one == nil {
		return nil, err
	}
	return &endpoint.Engine{Name: one.Name, Host: machineHost(one)}, nil
}

// used is the machine in use, nil where none is.
func (m *machines) used() (*machine.Machine, error) {
	name, err := m.activeName()
	if err != nil || name == "" {
		return nil, err
	}
	s, err := m.store()
	if err != nil {
		return nil, err
	}
	one, err := s.Get(name)
	if err != nil {
		return nil, withHint(err, "%s chooses another one, %s none", m.typed("use NAME"), m.typed("use --none"))
	}
	return one, nil
}

// startMachine starts the machine that serves this command unless it runs. Without start it says in the choice that it would have to be.
func (a *app) startMachine(ctx context.Context, choice endpoint.Choice, start bool) (endpoint.Choice, error) {
	m := a.machines()
	one, err := m.used()
	if err != nil || one == nil {
		return choice, err
	}
	ask, cancel := context.WithTimeout(ctx, answerWait)
	st := one.Status(ask)
	cancel()
	if st.Phase.Up() {
		a.machine = one
		return choice, nil
	}
	if !start {
		choice.Start = true
		return choice, nil
	}
	a.say(fmt.Sprintf("Starting machine %q, whose engine is in use …", one.Name))
	if err := one.Start(ctx, m.tell()); err != nil {
		m.showStartFailure(err)
		return choice, err
	}
	a.machine = one
	return choice, nil
}

// makeFirstMachine makes the machine default where the engine does not run natively and nothing else is there to run on. It says what it does.
func (a *app) makeFirstMachine(ctx context.Context, cause error) error {
	if _, none := errors.AsType[*endpoint.NoEngineError](cause); !none || runtime.GOOS == "linux" {
		return cause
	}
	m := a.machines()
	s, err := m.store()
	if err != nil {
		return err
	}
	a.say("There is no engine on this computer yet: making a virtual machine that runs one. This is done once.")
	var o machineCreate
	o.driver = machine.DefaultSpec().Driver
	spec, err := o.spec(a)
	if err != nil {
		return err
	}
	return m.create(ctx, s, defaultMachine, spec, o, config.Unanswered)
}

// fitToMachine prepares a project for the machine whose engine serves this command, if one does: bind mounts get the paths that folders have there,
// and folders that are not there are warned of.
func (a *app) fitToMachine(p *types.Project) error {
	if a.machine == nil {
		return nil
	}
	a.warnUnshared(p)
	return guestBinds(p, runtime.GOOS)
}

// warnUnshared says which folders of the host a project binds into containers that the machine does not share: there they would be empty.
func (a *app) warnUnshared(p *types.Project) {
	for _, source := range unsharedBinds(p, a.machine.Spec.Shares, runtime.GOOS) {
		a.warn(fmt.Sprintf("%s is not shared with the machine: in containers it will be empty. Share it: dev machine edit --share %s --restart", source, quoteArgument(source)))
	}
}

// unsharedBinds are the sources of bind mounts that are in none of the shares, each once, sorted. Sockets and such of the machine's own are no
// folders of the host.
func unsharedBinds(p *types.Project, shares []machine.Share, goos string) []string {
	found := map[string]bool{}
	for _, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind || ownedByMachine(v.Source) {
				continue
			}
			if _, ok := guestFolder(shares, v.Source, goos); !ok {
				found[v.Source] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// ownedByMachine reports whether a bind mount means the machine's own: its Docker socket, and what the kernel shows.
func ownedByMachine(source string) bool {
	for _, own := range []string{"/var/run", "/run", "/proc", "/sys", "/dev", "/var/lib/docker", "/lib/modules", "/etc/localtime", "/etc/timezone"} {
		if _, inside := within(own, source); inside {
			return true
		}
	}
	return false
}

// guestBinds gives bind mounts the paths that the host's folders have in a machine. They differ only on Windows.
func guestBinds(p *types.Project, goos string) error {
	if goos != "windows" {
		return nil
	}
	for name, s := range p.Services {
		for i, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind || strings.HasPrefix(v.Source, "/") {
				continue
			}
			guest, err := hostagent.GuestPath(goos, v.Source)
			if err != nil {
				return fmt.Errorf("service %q: %w", name, err)
			}
			s.Volumes[i].Source = guest
		}
	}
	return nil
}

// quoteArgument is a word as it is typed.
func quoteArgument(word string) string {
	if strings.ContainsAny(word, " \t\"'$&()") {
		return `"` + word + `"`
	}
	return word
}
