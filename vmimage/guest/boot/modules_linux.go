// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const indexFile = "/usr/lib/modules/index"

// loadIndex reads the image's table of modules.
func loadIndex() (*Index, error) {
	f, err := os.Open(indexFile)
	if err != nil {
		return nil, fmt.Errorf("read module index: %w", err)
	}
	defer f.Close()
	return ParseIndex(f)
}

// load loads modules by name or alias, with what they need. A module that has no device here fails harmlessly; all are tried.
func (x *Index) load(names ...string) error {
	var errs []error
	for _, name := range names {
		files, _ := x.Files(name)
		for _, file := range files {
			if err := insert(file); err != nil {
				errs = append(errs, fmt.Errorf("load module %q: %w", file, err))
			}
		}
	}
	return errors.Join(errs...)
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Modprobe is what the kernel runs to load a module by name or alias. Options are ignored: the kernel passes -q and --.
func Modprobe(args []string) error {
	x, err := loadIndex()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range args {
		if name == "" || name[0] == '-' {
			continue
		}
		if _, known := x.Files(name); !known {
			errs = append(errs, fmt.Errorf("load module %q: the image has none of that name", name))
			continue
		}
		errs = append(errs, x.load(name))
	}
	return errors.Join(errs...)
}

// vsockModules are the drivers for a socket to the host that no network is needed for, where the machine has the device.
func vsockModules() []string {
	var names []string
	for pattern, module := range map[string]string{
		"/sys/bus/virtio/devices/*/modalias": "vmw_vsock_virtio_transport",
		"/sys/bus/vmbus/devices/*/modalias":  "hv_sock",
	} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			alias, _ := os.ReadFile(f)
			if module == "hv_sock" || strings.HasPrefix(string(alias), virtioVsock) {
				names = append(names, module)
				break
			}
		}
	}
	return names
}

// virtioVsock begins the alias of virtio's socket device, number 19.
const virtioVsock = "virtio:d00000013"
