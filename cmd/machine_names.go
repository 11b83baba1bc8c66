// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/qemu"
	"github.com/seed71221737/dev/vmimage"
)

// defaultMachine is the machine meant where no name is given.
const defaultMachine = "default"

// machines is the machine commands' share of the app.
type machines struct {
	*app
	// storage is --storage-path: the folder above machines/. Empty: MACHINE_STORAGE_PATH, or the user's folder.
	storage string
	// words is what the user types before a command: dev machine, or docker-machine.
	words []string
}

// machines is for commands outside `dev machine`.
func (a *app) machines() *machines { return &machines{app: a, words: []string{"dev", "machine"}} }

// typed is a command line of ours, for hints.
func (m *machines) typed(words ...string) string {
	return strings.Join(append(append([]string{}, m.words...), words...), " ")
}

// storeDir is the folder that holds the machines' folders.
func (m *machines) storeDir() (string, error) {
	dir := m.storage
	if dir == "" {
		dir = m.getenv("MACHINE_STORAGE_PATH")
	}
	if dir != "" {
		var err error
		if dir, err = m.path(dir); err != nil {
			return "", err
		}
	} else {
		var err error
		if dir, err = m.userDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "machines"), nil
}

// store gives the command its machines; it is the one place that does.
func (m *machines) store() (*machine.Store, error) {
	dir, err := m.storeDir()
	if err != nil {
		return nil, err
	}
	images, err := m.imageStore()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	state, err := m.userDir()
	if err != nil {
		return nil, err
	}
	s := &machine.Store{
		Dir: dir, Images: images, Drivers: m.machineDrivers(images, state), Logger: m.logger(), Containers: machineContainers{},
		Agent: []string{exe, "hostagent", "--storage-path", filepath.Dir(dir)},
	}
	for _, name := range []string{"DEV_HOME", "GOCOVERDIR"} {
		if value, ok := m.lookupEnv(name); ok {
			s.Env = append(s.Env, name+"="+value)
		}
	}
	return s, nil
}

// machineDrivers are the drivers that machines can have. state is the folder in which they remember what they found out about this host.
func (a *app) machineDrivers(images *vmimage.Store, state string) map[string]machine.Driver {
	return map[string]machine.Driver{"qemu": &qemu.Driver{Images: images, State: state, Say: a.say, Logger: a.logger()}}
}

// names are the machines that a command is for: those named, else default.
func (m *machines) names(s *machine.Store, args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	if _, err := s.Get(defaultMachine); err != nil {
		return nil, withHint(fmt.Errorf("no machine name(s) specified and no %q machine exists", defaultMachine), "%s makes it; %s lists what there is", m.typed("create"), m.typed("ls"))
	}
	return []string{defaultMachine}, nil
}

// one is the machine that a command for a single one is for.
func (m *machines) one(args []string) (*machine.Machine, error) {
	s, err := m.store()
	if err != nil {
		return nil, err
	}
	names, err := m.names(s, args)
	if err != nil {
		return nil, err
	}
	return m.get(s, names[0])
}

// get finds a machine; a name that nearly is one is suggested.
func (m *machines) get(s *machine.Store, name string) (*machine.Machine, error) {
	found, err := s.Get(name)
	if missing, ok := errors.AsType[*machine.NotFoundError](err); ok {
		list, listErr := s.List()
		if listErr != nil {
			return nil, missing
		}
		var names []string
		for _, other := range list {
			names = append(names, other.Name)
		}
		if near := nearest(name, names); near != "" {
			return nil, withHint(missing, "did you mean %q?", near)
		}
		return nil, withHint(missing, "%s lists the machines; %s makes one", m.typed("ls"), m.typed("create", name))
	}
	return found, err
}

// each does something to every machine that a command is for, all at once. Errors are joined, a line each.
func (m *machines) each(ctx context.Context, args []string, do func(ctx context.Context, one *machine.Machine) error) error {
	s, err := m.store()
	if err != nil {
		return err
	}
	names, err := m.names(s, args)
	if err != nil {
		return err
	}
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			one, err := m.get(s, name)
			if err == nil {
				err = do(ctx, one)
			}
			errs[i] = err
		})
	}
	all.Wait()
	return joinMachineErrors(errs)
}

// eachLine is each for commands that print a line for every machine, in the order of their names on the command line.
func (m *machines) eachLine(ctx context.Context, args []string, do func(ctx context.Context, one *machine.Machine) (string, error)) error {
	var mu sync.Mutex
	lines := map[string]string{}
	err := m.each(ctx, args, func(ctx context.Context, one *machine.Machine) error {
		line, err := do(ctx, one)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		lines[one.Name] = line
		return nil
	})
	if len(args) == 0 {
		args = []string{defaultMachine}
	}
	var printed []string
	for _, name := range args {
		if line, ok := lines[name]; ok {
			printed = append(printed, line)
		}
	}
	return errors.Join(m.printLines(printed), err)
}

// joinMachineErrors is errors.Join that leaves a single error as it is, with its hint and exit code.
func joinMachineErrors(errs []error) error {
	var some []error
	for _, err := range errs {
		if err != nil {
			some = append(some, err)
		}
	}
	if len(some) == 1 {
		return some[0]
	}
	return errors.Join(some...)
}

// activeFile remembers which machine `use` named.
func activeFile(storeDir string) string { return filepath.Join(storeDir, ".active") }

// activeName is the machine that `dev up` and others use, "" if there is none: the one named by `use`; where the engine does not run natively,
// default if it is there.
func (m *machines) activeName() (string, error) {
	dir, err := m.storeDir()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(activeFile(dir))
	switch {
	case err == nil:
		return strings.TrimSpace(string(data)), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read which machine is in use: %w", err)
	case runtime.GOOS == "linux":
		return "", nil
	}
	if _, err := os.Stat(filepath.Join(dir, defaultMachine)); err != nil {
		return "", nil //nolint:nilerr // there is no machine of that name
	}
	return defaultMachine, nil
}

// setActive remembers a machine, or with "" none.
func (m *machines) setActive(name string) error {
	dir, err := m.storeDir()
	if err != nil {
		return err
	}
	if name == "" {
		err = os.Remove(activeFile(dir))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = atomicfile.Write(activeFile(dir), []byte(name+"\n"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("remember which machine is in use: %w", err)
	}
	return nil
}

// completeMachines completes names of machines.
func (m *machines) complete(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	s, err := m.store()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := s.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, one := range list {
		if strings.HasPrefix(one.Name, prefix) && !slices.Contains(args, one.Name) {
			names = append(names, one.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
