// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed71221737/dev/engine/config"
)

// host is what the generated configuration needs to know of the host.
type host struct {
	firewall Firewall             // nftables or iptables
	pools    []config.AddressPool // for new networks
	group    string               // the group of the socket; empty leaves it to root
}

// daemonConfig is dockerd's daemon.json, as far as we use it.
type daemonConfig struct {
	Hosts              []string          `json:"hosts"`
	Group              string            `json:"group,omitempty"`
	DataRoot           string            `json:"data-root"`
	ExecRoot           string            `json:"exec-root"`
	Containerd         string            `json:"containerd"`
	LiveRestore        bool              `json:"live-restore"`
	FirewallBackend    string            `json:"firewall-backend"`
	UserlandProxyPath  string            `json:"userland-proxy-path"`
	InitPath           string            `json:"init-path"`
	LogDriver          string            `json:"log-driver"`
	LogOpts            map[string]string `json:"log-opts"`
	AddressPools       []daemonPool      `json:"default-address-pools"`
	RegistryMirrors    []string          `json:"registry-mirrors,omitempty"`
	InsecureRegistries []string          `json:"insecure-registries,omitempty"`
	Proxies            *daemonProxies    `json:"proxies,omitempty"`
	DNS                []string          `json:"dns,omitempty"`
	CgroupParent       string            `json:"cgroup-parent,omitempty"`
	Features           map[string]bool   `json:"features,omitempty"`
	LogLevel           string            `json:"log-level"`
	LogFormat          string            `json:"log-format"`
}

type daemonPool struct {
	Base string `json:"base"`
	Size int    `json:"size"`
}

type daemonProxies struct {
	HTTP  string `json:"http-proxy,omitempty"`
	HTTPS string `json:"https-proxy,omitempty"`
	No    string `json:"no-proxy,omitempty"`
}

// daemonJSON is the content of dockerd's configuration file.
func daemonJSON(p Paths, bin string, s Settings, h host) ([]byte, error) {
	c := daemonConfig{
		Hosts:              []string{p.Host()},
		Group:              h.group,
		DataRoot:           cmp.Or(s.dataRoot("docker"), p.dockerData()),
		ExecRoot:           p.execRoot(),
		Containerd:         p.containerdSocket(),
		LiveRestore:        s.LiveRestore,
		FirewallBackend:    string(h.firewall),
		UserlandProxyPath:  filepath.Join(bin, "docker-proxy"),
		InitPath:           filepath.Join(bin, "docker-init"),
		LogDriver:          "json-file", // what every tool that reads log files expects
		LogOpts:            map[string]string{"max-size": s.LogMaxSize, "max-file": strconv.Itoa(s.LogMaxFile)},
		AddressPools:       daemonPools(h.pools),
		RegistryMirrors:    s.RegistryMirrors,
		InsecureRegistries: s.InsecureRegistries,
		DNS:                s.DNS,
		CgroupParent:       s.CgroupParent,
		Features:           map[string]bool{},
		LogLevel:           s.logLevel(),
		LogFormat:          "text",
	}
	if s.HTTPProxy != "" || s.HTTPSProxy != "" || s.NoProxy != "" {
		c.Proxies = &daemonProxies{HTTP: s.HTTPProxy, HTTPS: s.HTTPSProxy, No: s.NoProxy}
	}
	if h.firewall == FirewallNftables {
		c.Features["swarm-nftables"] = true // lets swarm mode run beside nftables
	}
	return json.MarshalIndent(c, "", "  ")
}

func daemonPools(pools []config.AddressPool) []daemonPool {
	list := make([]daemonPool, 0, len(pools))
	for _, pool := range pools {
		list = append(list, daemonPool{Base: pool.Base.String(), Size: pool.Size})
	}
	return list
}

func (s Settings) logLevel() string {
	if s.Debug {
		return "debug"
	}
	return "info"
}

// dataRoot is the folder of one component in the data root that the user
// chose, or empty.
func (s Settings) dataRoot(component string) string {
	if s.DataRoot == "" {
		return ""
	}
	return filepath.Join(s.DataRoot, component)
}

// unusedPlugins are containerd's plugins that dockerd never asks for. Leaving
// them out shortens the start: several probe the kernel or open a database.
var unusedPlugins = []string{
	"io.containerd.cri.v1.images",
	"io.containerd.cri.v1.runtime",
	"io.containerd.differ.v1.erofs", // starts a program to see what it can
	"io.containerd.grpc.v1.cri",
	"io.containerd.http.v1.pprof",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.tracing",
	"io.containerd.monitor.container.v1.restart", // dockerd has its own
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.nri.v1.nri",
	"io.containerd.podsandbox.controller.v1.podsandbox",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.zfs",
	"io.containerd.tracing.processor.v1.otlp",
}

// containerdTOML is the content of containerd's configuration file.
func containerdTOML(p Paths, s Settings) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("version = 4")
	line("root = %s", tomlString(cmp.Or(s.dataRoot("containerd"), p.containerdData())))
	line("state = %s", tomlString(p.containerdState()))
	line("disabled_plugins = [")
	for _, id := range unusedPlugins {
		line("  %s,", tomlString(id))
	}
	line("]")
	line("[plugins.\"io.containerd.server.v1.grpc\"]")
	line("  address = %s", tomlString(p.containerdSocket()))
	line("[plugins.\"io.containerd.server.v1.ttrpc\"]")
	line("  address = %s", tomlString(p.containerdSocket()+".ttrpc"))
	line("[debug]")
	line("  level = %s", tomlString(s.logLevel()))
	return []byte(b.String())
}

// tomlString quotes a string for TOML, whose basic strings include JSON's.
func tomlString(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(quoted)
}
