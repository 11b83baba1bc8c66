// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// object is a JSON object of the monitor.
type object map[string]any

// standInVM is what a stand-in remembers between the monitor's clients.
type standInVM struct {
	how      string
	incoming bool // it waits for its memory
	paused   bool
	failed   bool
	life     string // written to memory at boot: who has it is the same VM
	plugged  map[string]bool
	disk     string // the data disk's file
	memory   int64  // what it has of its memory, in bytes
	say      func(v any)
}

// memoryFile is where a stand-in has its memory, as QEMU has; nil where it was given none.
func memoryFile() *os.File {
	f := os.NewFile(3, "memory")
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return f
}

// lifeOffset is somewhere in the memory.
const lifeOffset = 300 << 20

// boot writes to memory what tells this VM from others.
func (vm *standInVM) boot() {
	if vm.incoming {
		return
	}
	vm.life = rand.Text()
	if f := memoryFile(); f != nil {
		_, _ = f.WriteAt([]byte(vm.life), lifeOffset) // what is lost is missed when it is restored
	}
}

// remembers says whether the memory is the one of the state that was read.
func (vm *standInVM) remembers() bool {
	f := memoryFile()
	if f == nil {
		return vm.life != ""
	}
	have := make([]byte, len(vm.life))
	_, err := f.ReadAt(have, lifeOffset)
	return err == nil && vm.life != "" && string(have) == vm.life
}

// arguments are those of all commands that the stand-in knows.
type arguments struct {
	ID     string `json:"id"`
	Driver string `json:"driver"`
	URI    string `json:"uri"`
	Size   int64  `json:"size"`
	Value  int64  `json:"value"`
}

func (vm *standInVM) event(name string, data any) {
	vm.say(object{"event": name, "data": data, "timestamp": object{"seconds": 0, "microseconds": 0}})
}

func (vm *standInVM) refuse(text string) {
	vm.say(object{"error": object{"class": "GenericError", "desc": text}})
}

// converse serves one client, as QEMU does, and says whether the VM was powered off.
func (vm *standInVM) converse(conn net.Conn) (off bool) {
	defer conn.Close()
	vm.say = func(v any) { _ = json.NewEncoder(conn).Encode(v) }
	vm.say(object{"QMP": object{"version": object{"qemu": object{"major": 9, "minor": 0, "micro": 0}}, "capabilities": []string{}}})
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var command struct {
			Execute   string    `json:"execute"`
			Arguments arguments `json:"arguments"`
		}
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			vm.refuse("JSON parse error")
			continue
		}
		if vm.how == StandInSilent {
			continue
		}
		if vm.obey(command.Execute, command.Arguments) {
			return true
		}
		if vm.how == StandInFaults && command.Execute == "qmp_capabilities" {
			vm.crashOnce()
		}
	}
	return false
}

// crashOnce ends the process as a wild pointer would, unless it has in this machine before. Go's own programs do not end so: they say where they were.
func (vm *standInVM) crashOnce() {
	mark, err := os.OpenFile(vm.disk+".crashed", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_ = mark.Close() // it is empty
	err = syscall.Exec("/bin/sh", []string{"sh", "-c", "ulimit -c 0; kill -SEGV $$"}, os.Environ())
	fmt.Fprintln(os.Stderr, "crash:", err)
}

// obey does one command and says whether the VM is off after it.
func (vm *standInVM) obey(command string, a arguments) (off bool) {
	done := object{"return": object{}}
	switch command {
	case "balloon":
		vm.memory = a.Value
		vm.say(done)
	case "query-balloon":
		vm.say(object{"return": object{"actual": vm.memory}})
	case "query-block", "block_resize":
		vm.resize(command, a.Size)
	case "qmp_capabilities", "chardev-add", "chardev-remove", "migrate-set-capabilities", "migrate-set-parameters", "migrate_cancel":
		vm.say(done)
	case "stop":
		vm.paused = true
		vm.event("STOP", object{})
		vm.say(done)
	case "cont":
		vm.paused = false
		vm.say(done)
		vm.event("RESUME", object{})
	case "query-status":
		status := "running"
		if vm.paused {
			status = "paused"
		}
		vm.say(object{"return": object{"status": status, "running": !vm.paused}})
	case "device_add":
		vm.plugged[a.ID] = true
		vm.say(done)
	case "device_del":
		if !vm.plugged[a.ID] {
			vm.refuse("Device '" + a.ID + "' not found")
			return false
		}
		delete(vm.plugged, a.ID)
		vm.say(done)
		vm.event("DEVICE_DELETED", object{"device": a.ID})
	case "migrate", "migrate-incoming":
		vm.migrate(command, a.URI)
	case "query-migrate":
		status := "completed"
		if vm.failed {
			status = "failed"
		}
		vm.say(object{"return": object{"status": status}})
	case "system_powerdown":
		vm.say(done)
		vm.event("POWERDOWN", object{})
		if vm.how != StandInHung && !vm.paused {
			vm.event("SHUTDOWN", object{"guest": true, "reason": "guest-shutdown"})
			return true
		}
	case "quit":
		if vm.how == StandInStays {
			vm.refuse("the stand-in was told to stay")
			return false
		}
		vm.say(done)
		return true
	default:
		vm.say(object{"error": object{"class": "CommandNotFound", "desc": "The command " + command + " has not been found"}})
	}
	return false
}

// resize tells the data disk's size, or changes it.
func (vm *standInVM) resize(command string, size int64) {
	info, err := os.Stat(vm.disk)
	if err == nil && command == "block_resize" {
		err = os.Truncate(vm.disk, size)
	}
	switch {
	case err != nil:
		vm.refuse(err.Error())
	case command == "block_resize":
		vm.say(object{"return": object{}})
	default:
		vm.say(object{"return": []object{{"device": "data", "inserted": object{"image": object{"virtual-size": info.Size()}}}}})
	}
}

// migrate hands out the state of the devices, or takes it.
func (vm *standInVM) migrate(command, uri string) {
	path := strings.TrimPrefix(uri, "unix:")
	var ok bool
	switch {
	case vm.how == StandInKeeps && command == "migrate", len(vm.plugged) > 0 && command == "migrate":
		vm.refuse("State blocked by a device that the stand-in was told to have")
		return
	case command == "migrate":
		vm.say(object{"return": object{}})
		ok = vm.handOut(path)
	default:
		ok = vm.takeIn(path)
	}
	vm.failed = !ok
	status := "completed"
	if vm.failed {
		status = "failed"
	}
	vm.event("MIGRATION", object{"status": status})
}

func (vm *standInVM) handOut(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer conn.Close()
	_, err = io.WriteString(conn, vm.life)
	return err == nil
}

func (vm *standInVM) takeIn(path string) bool {
	l, err := net.Listen("unix", path)
	if err != nil {
		vm.refuse(err.Error())
		return false
	}
	defer l.Close()
	vm.say(object{"return": object{}})
	conn, err := l.Accept()
	if err != nil {
		return false
	}
	defer conn.Close()
	life, err := io.ReadAll(conn)
	vm.life = string(life)
	return err == nil && vm.how != StandInLoses && vm.remembers()
}
