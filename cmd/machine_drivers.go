// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// foreignFlag is a flag of a driver of docker-machine's that dev does not have: known, so that it can be refused by name.
type foreignFlag struct {
	name, value, usage string
	isSwitch           bool
}

// foreignDrivers are docker-machine's drivers with their flags, without the prefix; the prefix is the driver's name but for VMware Fusion.
var foreignDrivers = map[string][]foreignFlag{
	"virtualbox": {
		{name: "memory", value: "1024", usage: "size of memory in MB"}, {name: "cpu-count", value: "1", usage: "number of CPUs, -1 for all"},
		{name: "disk-size", value: "20000", usage: "size of the disk in MB"}, {name: "boot2docker-url", usage: "address of the boot2docker image"},
		{name: "import-boot2docker-vm", usage: "name of a boot2docker VM to import"}, {name: "host-dns-resolver", isSwitch: true, usage: "use the host's DNS resolver"},
		{name: "nat-nictype", value: "82540EM", usage: "type of the NAT card"}, {name: "hostonly-cidr", value: "192.168.99.1/24", usage: "network of the host-only card"},
		{name: "hostonly-nictype", value: "82540EM", usage: "type of the host-only card"}, {name: "hostonly-nicpromisc", value: "deny", usage: "promiscuous mode of the host-only card"},
		{name: "ui-type", value: "headless", usage: "gui, sdl, headless or separate"}, {name: "hostonly-no-dhcp", isSwitch: true, usage: "no DHCP on the host-only network"},
		{name: "no-share", isSwitch: true, usage: "do not share the home folder"}, {name: "no-dns-proxy", isSwitch: true, usage: "no DNS proxy"},
		{name: "no-vtx-check", isSwitch: true, usage: "do not check for hardware virtualization"}, {name: "share-folder", usage: "folder to share instead of the home folder, dir:name"},
	},
	"hyperv": {
		{name: "boot2docker-url", usage: "address of the boot2docker image"}, {name: "virtual-switch", usage: "virtual switch to use (default: the first)"},
		{name: "disk-size", value: "20000", usage: "size of the disk in MB"}, {name: "memory", value: "1024", usage: "size of memory in MB"},
		{name: "cpu-count", value: "1", usage: "number of CPUs"}, {name: "static-macaddress", usage: "MAC address of the card"},
		{name: "vlan-id", usage: "VLAN of the card"}, {name: "disable-dynamic-memory", isSwitch: true, usage: "do not let memory grow and shrink"},
	},
	"generic": {
		{name: "engine-port", value: "2376", usage: "port of the engine"}, {name: "ip-address", usage: "address of the host"},
		{name: "ssh-user", value: "root", usage: "user of SSH"}, {name: "ssh-key", usage: "private key of SSH"}, {name: "ssh-port", value: "22", usage: "port of SSH"},
	},
	"none": {{name: "url", usage: "address of the engine"}},
	"vmwarefusion": {
		{name: "boot2docker-url", usage: "address of the boot2docker image"}, {name: "configdrive-url", usage: "address of a config drive"},
		{name: "cpu-count", value: "1", usage: "number of CPUs"}, {name: "memory-size", value: "1024", usage: "size of memory in MB"},
		{name: "disk-size", value: "20000", usage: "size of the disk in MB"}, {name: "ssh-user", value: "docker", usage: "user of SSH"},
		{name: "ssh-password", value: "tcuser", usage: "password of SSH"}, {name: "no-share", isSwitch: true, usage: "do not share the home folder"},
	},
}

// flagName is a driver's flag as it is typed: none's has no prefix.
func (f foreignFlag) flagName(driver string) string {
	if driver == "none" {
		return f.name
	}
	return driver + "-" + f.name
}

// addForeignFlags makes the flags of drivers that dev does not have known and hidden.
func addForeignFlags(f *pflag.FlagSet) {
	for driver, flags := range foreignDrivers {
		for _, x := range flags {
			name := x.flagName(driver)
			f.String(name, x.value, x.usage)
			if x.isSwitch {
				f.Lookup(name).NoOptDefVal = "true"
			}
			_ = f.MarkHidden(name)
		}
	}
}

// showForeignFlags shows a driver's flags in the help, as docker-machine does where --driver names it.
func showForeignFlags(c *cobra.Command, driver string) {
	for _, x := range foreignDrivers[driver] {
		if f := c.Flags().Lookup(x.flagName(driver)); f != nil {
			f.Hidden = false
		}
	}
}

// sameHere is what a foreign driver's flag is called for a machine of ours.
func sameHere(name string) string {
	switch name {
	case "memory", "memory-size":
		return "--memory"
	case "cpu-count":
		return "--cpus"
	case "disk-size":
		return "--disk"
	case "no-share":
		return "--no-share"
	case "share-folder":
		return "--share"
	}
	return ""
}

// refuseForeign explains a driver or a driver's flag that dev does not have; ours are the drivers it has.
func refuseForeign(f *pflag.FlagSet, driver string, ours []string) error {
	if _, foreign := foreignDrivers[driver]; !slices.Contains(ours, driver) {
		what := "is none that dev knows"
		if foreign {
			what = "is not there yet"
		}
		return withHint(fmt.Errorf("driver %q %s", driver, what), "the drivers here: %s; leave out --driver for the usual one", strings.Join(ours, ", "))
	}
	var errs []error
	for other, flags := range foreignDrivers {
		for _, x := range flags {
			if slices.Contains(ours, other) || !f.Changed(x.flagName(other)) {
				continue
			}
			err := fmt.Errorf("--%s belongs to driver %q, and this machine's driver is %q", x.flagName(other), other, driver)
			if same := sameHere(x.name); same != "" {
				err = withHint(err, "here it is %s", same)
			}
			errs = append(errs, err)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
