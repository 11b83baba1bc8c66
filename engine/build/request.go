// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/build/wire"
)

const (
	// exporter loads the result into the engine's image store. The engine registers it under this name
	// (moby/moby daemon/internal/builder-next/exporter).
	exporter = "moby"
	// The names that BuildKit's Dockerfile frontend gives its mounts (moby/buildkit frontend/dockerui).
	contextMount    = "context"
	dockerfileMount = "dockerfile"
	// inlineName is what the file of dockerfile_inline is called in messages.
	inlineName = "Dockerfile"
	// contextsCap tells a frontend given by `# syntax=` that named contexts are in use.
	contextsCap = "moby.buildkit.frontend.contexts+forward"

	hostGateway = "host-gateway"
)

// request is one build as data: what BuildKit is asked, and what of this host it may read.
type request struct{ *wire.Request }

// newRequest converts the spec. It looks at the file system only to say early that a context or Dockerfile is missing.
func newRequest(spec compose.BuildSpec) (*wire.Request, error) {
	c := spec.Config
	r := request{&wire.Request{
		Version:  wire.Version,
		Service:  spec.Service,
		Frontend: "dockerfile.v0",
		Attrs:    map[string]string{},
		Folders:  map[string]string{},
		Exporter: exporter,
		Export:   map[string]string{"name": strings.Join(spec.Tags, ",")},
		Secrets:  map[string]wire.Secret{},
	}}
	for _, a := range c.SSH {
		r.Agents = append(r.Agents, wire.Agent{ID: a.ID, Path: a.Path})
	}
	for name, s := range spec.Secrets {
		r.Secrets[name] = wire.Secret{File: s.File, Content: []byte(s.Content)}
	}
	if spec.Push {
		r.Export["push"] = "true"
	}
	if err := r.setContext(spec); err != nil {
		return nil, err
	}
	if err := r.setNamedContexts(spec); err != nil {
		return nil, err
	}
	r.setArgs(c)
	r.setSteps(spec)
	r.setAttestations(c)
	r.setHosts(c.ExtraHosts)
	r.setEntitlements(c)
	return r.Request, r.setCache(c)
}

// setContext sets the build context and the Dockerfile, each from this host or from a URL.
func (r request) setContext(spec compose.BuildSpec) error {
	c := spec.Config
	file := c.Dockerfile
	if file == "" {
		file = "Dockerfile"
	}
	remote := isRemote(c.Context)
	if remote {
		r.Attrs["context"] = c.Context
	} else {
		if err := r.addFolder(contextMount, c.Context, spec.Service, "context"); err != nil {
			return err
		}
		r.SharedKey = sharedKey(c.Context)
		if !filepath.IsAbs(file) {
			file = filepath.Join(c.Context, file)
		}
	}
	switch {
	case c.DockerfileInline != "":
		r.Inline, r.InlineName, r.InlineMount = c.DockerfileInline, inlineName, dockerfileMount
		r.Attrs["dockerfilekey"] = dockerfileMount
		r.Attrs["filename"] = inlineName
	case remote && !filepath.IsAbs(file):
		r.Attrs["filename"] = filepath.ToSlash(file)
	default:
		if lower := filepath.Join(filepath.Dir(file), "dockerfile"); filepath.Base(file) == "Dockerfile" && !isFile(file) && isFile(lower) {
			file = lower // as docker build takes it
		}
		if !isFile(file) {
			return &MissingError{Service: spec.Service, What: "dockerfile", Path: file}
		}
		r.Attrs["filename"] = filepath.Base(file)
		r.Folders[dockerfileMount] = filepath.Dir(file)
		if remote {
			r.Attrs["dockerfilekey"] = dockerfileMount
		}
	}
	return nil
}

// setNamedContexts sets the additional contexts.
func (r request) setNamedContexts(spec compose.BuildSpec) error {
	for _, name := range slices.Sorted(maps.Keys(spec.Config.AdditionalContexts)) {
		at := spec.Config.AdditionalContexts[name]
		r.Attrs["frontend.caps"] = contextsCap
		if isRemote(at) || strings.HasPrefix(at, "docker-image://") || strings.HasPrefix(at, "target:") {
			r.Attrs["context:"+name] = at
			continue
		}
		mount := name
		if mount == contextMount || mount == dockerfileMount {
			mount = "_" + mount // those two are taken
		}
		if err := r.addFolder(mount, at, spec.Service, "additional context "+strconv.Quote(name)); err != nil {
			return err
		}
		r.Attrs["context:"+name] = "local:" + mount
		r.Attrs["sharedkey:localdir:"+name] = sharedKey(at)
	}
	return nil
}

func (r request) addFolder(mount, dir, service, what string) error {
	if ok, err := isDir(dir); err != nil || !ok {
		return &MissingError{Service: service, What: what, Path: dir}
	}
	r.Folders[mount] = dir
	return nil
}

func (r request) setArgs(c types.BuildConfig) {
	for name, value := range c.Args {
		if value != nil {
			r.Attrs["build-arg:"+name] = *value
		}
	}
	for name, value := range c.Labels {
		r.Attrs["label:"+name] = value
	}
	// BUILDKIT_SYNTAX chooses the frontend as a `# syntax=` line does.
	if syntax := strings.TrimSpace(r.Attrs["build-arg:BUILDKIT_SYNTAX"]); syntax != "" {
		r.Frontend = "gateway.v0"
		r.Attrs["source"], _, _ = strings.Cut(syntax, " ")
		r.Attrs["cmdline"] = syntax
	}
}

// setSteps sets what governs the build's steps.
func (r request) setSteps(spec compose.BuildSpec) {
	c := spec.Config
	set := func(key, value string) {
		if value != "" {
			r.Attrs[key] = value
		}
	}
	set("target", c.Target)
	set("platform", strings.Join(spec.Platforms, ","))
	set("no-cache", strings.Join(c.NoCacheFilter, ","))
	if spec.NoCache {
		r.Attrs["no-cache"] = "" // all stages
	}
	r.Attrs["image-resolve-mode"] = "local"
	if spec.Pull {
		r.Attrs["image-resolve-mode"] = "pull"
	}
	if c.ShmSize > 0 {
		r.Attrs["shm-size"] = strconv.FormatInt(int64(c.ShmSize), 10)
	}
	set("ulimit", ulimits(c.Ulimits))
	if c.Network != "" && c.Network != "default" {
		r.Attrs["force-network-mode"] = c.Network
	}
}

// setAttestations sets those asked for. None is made unasked: an attestation changes the image's ID at each build, so that
// nothing would ever be up to date.
func (r request) setAttestations(c types.BuildConfig) {
	for kind, value := range map[string]string{"provenance": c.Provenance, "sbom": c.SBOM} {
		enabled, err := strconv.ParseBool(value)
		switch {
		case value == "" || err == nil && !enabled:
		case err == nil:
			r.Attrs["attest:"+kind] = ""
		default:
			r.Attrs["attest:"+kind] = value
		}
	}
}

func (r request) setEntitlements(c types.BuildConfig) {
	r.Entitlements = slices.Clone(c.Entitlements)
	if c.Privileged {
		r.Entitlements = append(r.Entitlements, "security.insecure")
	}
	if c.Network == "host" {
		r.Entitlements = append(r.Entitlements, "network.host")
	}
	slices.Sort(r.Entitlements)
	r.Entitlements = slices.Compact(r.Entitlements)
}

func (r request) setCache(c types.BuildConfig) (err error) {
	if r.CacheFrom, err = cacheEntries(c.CacheFrom); err != nil {
		return fmt.Errorf("build.cache_from: %w", err)
	}
	if r.CacheTo, err = cacheEntries(c.CacheTo); err != nil {
		return fmt.Errorf("build.cache_to: %w", err)
	}
	if inline, _ := strconv.ParseBool(r.Attrs["build-arg:BUILDKIT_INLINE_CACHE"]); inline {
		r.CacheTo = append(r.CacheTo, wire.Cache{Type: "inline", Attrs: map[string]string{}})
	}
	return nil
}

// setHosts renders extra_hosts. The address that host-gateway stands for is the engine's to tell.
func (r request) setHosts(all types.HostsList) {
	hosts := all.AsList("=")
	slices.Sort(hosts)
	if len(hosts) > 0 {
		r.Attrs["add-hosts"] = strings.Join(hosts, ",")
	}
	for _, ips := range all {
		if slices.Contains(ips, hostGateway) {
			r.HostGateway = hostGateway
		}
	}
}

func ulimits(all map[string]*types.UlimitsConfig) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		list = append(list, fmt.Sprintf("%s=%d:%d", name, soft, hard))
	}
	return strings.Join(list, ",")
}

// sharedKey names a folder to BuildKit without telling where it is.
func sharedKey(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Base(dir) + ":" + hex.EncodeToString(sum[:8])
}

// isRemote reports whether a context is fetched by BuildKit: an HTTP(S) or git URL, in the forms that docker build takes.
func isRemote(context string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(context, prefix) {
			return true
		}
	}
	return false
}
