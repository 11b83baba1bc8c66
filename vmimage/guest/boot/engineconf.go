// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
)

// engineGrace is how long the engine may take to end, with its containers, before it is killed.
const engineGrace = 60 * time.Second

// Where the engine's files are in a machine.
const (
	dockerSocket     = "/run/docker.sock"
	containerdSocket = "/run/containerd/containerd.sock"
	containerdConfig = "/run/dev/containerd.toml"
	daemonConfig     = "/run/dev/daemon.json"
)

// unusedPlugins are containerd's plugins that dockerd never asks for; several probe the kernel or open a database when they start.
var unusedPlugins = []string{
	"io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
	"io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native",
	"io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
}

func containerdTOML() string {
	var b strings.Builder
	b.WriteString("version = 3\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\ndisabled_plugins = [\n")
	for _, id := range unusedPlugins {
		fmt.Fprintf(&b, "  %q,\n", id)
	}
	fmt.Fprintf(&b, "]\n[grpc]\n  address = %q\n[debug]\n  level = \"info\"\n", containerdSocket)
	return b.String()
}

// daemonJSON is dockerd's configuration; what the seed says wins, except where the host finds the engine.
func daemonJSON(extra map[string]json.RawMessage, proxy map[string]string) ([]byte, error) {
	c := map[string]any{
		"data-root":           "/var/lib/docker",
		"exec-root":           "/run/docker",
		"firewall-backend":    "nftables",
		"userland-proxy-path": "/usr/local/bin/docker-proxy",
		"init-path":           "/usr/local/bin/docker-init",
		"log-driver":          "json-file",
		"log-opts":            map[string]string{"max-size": "10m", "max-file": "3"},
		"features":            map[string]bool{"containerd-snapshotter": true, "swarm-nftables": true},
		// An engine that gives up on its containers sooner ends with networks half put away, and starts none at the next boot. It is killed after engineGrace.
		"shutdown-timeout": int(engineGrace.Seconds()) - 15,
	}
	if p := proxies(proxy); len(p) > 0 {
		c["proxies"] = p
	}
	for k, v := range maps.All(extra) {
		c[k] = v
	}
	c["hosts"] = []string{"unix://" + dockerSocket}
	c["containerd"] = containerdSocket
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the engine's settings: %w", err)
	}
	return data, nil
}

// proxies renames environment variables as dockerd calls them.
func proxies(env map[string]string) map[string]string {
	p := map[string]string{}
	for from, to := range map[string]string{"HTTP_PROXY": "http-proxy", "HTTPS_PROXY": "https-proxy", "NO_PROXY": "no-proxy"} {
		if v := env[from]; v != "" {
			p[to] = v
		}
	}
	return p
}
