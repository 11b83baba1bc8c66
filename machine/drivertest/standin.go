// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed71221737/dev/vmimage"
)

// StandInVariable is the environment variable that makes a test binary play QEMU; its value says how. A test sets it for the processes it starts.
const StandInVariable = "DEV_TEST_STANDIN_QEMU"

// How a stand-in behaves.
const (
	StandInGood   = "good"   // powers off when it is asked to
	StandInHung   = "hung"   // does not heed the power button
	StandInSilent = "silent" // serves its monitor and never answers
	StandInFails  = "fails"  // says why and ends
	StandInQuits  = "quits"  // ends without a word
	StandInFaults = "faults" // crashes as soon as its monitor has answered, the first time that a machine is started
	StandInOld    = "old"    // is of an old version
	StandInKeeps  = "keeps"  // refuses to have its memory saved
	StandInLoses  = "loses"  // does not start with a saved memory
	StandInStays  = "stays"  // does not end when it is told to quit
)

// StandIn plays QEMU if the process was started as one, and does not return then. TestMain calls it first.
func StandIn() {
	how := os.Getenv(StandInVariable)
	args := os.Args[1:]
	if how == "" || !slices.Contains(args, "-nodefaults") && !slices.Contains(args, "--version") {
		return
	}
	os.Exit(standIn(how, args))
}

func standIn(how string, args []string) int {
	switch {
	case slices.Contains(args, "--version"):
		version := "9.0.0"
		if how == StandInOld {
			version = "6.2.0"
		}
		fmt.Printf("QEMU emulator version %s (stand-in)\n", version)
		return 0
	case slices.Contains(args, "-bios"):
		fmt.Fprintln(os.Stderr, "no accelerator in a stand-in")
		return 1
	case how == StandInFails:
		fmt.Fprintln(os.Stderr, "qemu-system: the stand-in was told to fail")
		return 1
	case how == StandInQuits:
		return 0
	}
	// A signal to the group of the process that started it must not reach it; one that does ends it as it ends QEMU.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	go func() {
		<-stop
		os.Exit(0)
	}()
	if err := serveMonitor(how, args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// option is the value of key in the option that begins so.
func option(args []string, begin, key string) string {
	for _, a := range args {
		if !strings.HasPrefix(a, begin) {
			continue
		}
		rest, ok := strings.CutPrefix(a[strings.Index(a, key):], key)
		if !ok {
			continue
		}
		rest = strings.ReplaceAll(rest, ",,", "\x00")
		value, _, _ := strings.Cut(rest, ",")
		return strings.ReplaceAll(value, "\x00", ",")
	}
	return ""
}

// standInMemory is what a stand-in says that it has, in bytes.
const standInMemory = 512 << 20

// serveMonitor is as much of QEMU as a machine sees: disks and network are opened, the console is written, the monitor served.
func serveMonitor(how string, args []string) error {
	for _, disk := range []string{"if=none,id=data", "if=none,id=seed", "if=none,id=root"} {
		f, err := os.OpenFile(option(args, disk, "file="), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
	}
	if !maintains(args) {
		network, err := net.Dial("unix", option(args, "stream,", "addr.path="))
		if err != nil {
			return err
		}
		defer network.Close()
	}
	console, err := os.OpenFile(option(args, "file,id=console", "path="), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	fmt.Fprintln(console, "stand-in: booting")
	vm := &standInVM{how: how, incoming: slices.Contains(args, "-incoming"), paused: slices.Contains(args, "-S"), plugged: map[string]bool{}}
	vm.disk, vm.memory = option(args, "if=none,id=data", "file="), standInMemory
	vm.boot()
	path := option(args, "socket,id=qmp", "path=")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if maintains(args) {
		go func() {
			if err := maintain(how, args); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}()
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		if off := vm.converse(conn); off {
			fmt.Fprintln(console, "stand-in: power down")
			return nil
		}
	}
}

// Image adds an image without contents to a store and returns its digest. A stand-in boots it.
func Image(t testing.TB, store *vmimage.Store, arch, tag string) string {
	t.Helper()
	return ImageWith(t, store, arch, tag, func(*vmimage.Manifest) {})
}

// ImageWith is Image with a manifest that change alters.
func ImageWith(t testing.TB, store *vmimage.Store, arch, tag string, change func(*vmimage.Manifest)) string {
	t.Helper()
	dir, err := store.Workspace()
	if err != nil {
		t.Fatal(err)
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	m := vmimage.Manifest{Schema: vmimage.ManifestSchema, Name: tag, Arch: arch, RootUUID: "01234567-89ab-cdef-0123-456789abcdef", GuestProtocol: 1}
	for _, name := range []string{vmimage.InitrdName, vmimage.KernelName, vmimage.RootName, vmimage.SBOMName, vmimage.StubName} {
		m.Files = append(m.Files, vmimage.ImageFile{Name: name, SHA256: empty})
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change(&m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, vmimage.ManifestName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := store.Add(t.Context(), dir, tag)
	if err != nil {
		t.Fatal(err)
	}
	return image.Digest
}
