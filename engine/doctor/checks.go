// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Bounds that checks compare with.
const (
	leastFree     = 2 << 30 // bytes
	leastPercent  = 5
	mostSkew      = 5 * time.Second
	leastWatches  = 65536
	leastInstance = 128
)

// HostChecks are the checks that need no engine. folders are those whose file systems need room.
func (h Host) HostChecks(folders []string) []Check {
	return []Check{
		h.DiskCheck("disk", "free space for images, volumes and snapshots", folders),
		{Name: "dns", About: "names of registries", Run: h.dns},
		{Name: "credentials", About: "docker's config.json and the credential helpers that it names", Run: func(context.Context) []Finding { return h.credentials() }},
		{Name: "settings", About: "config.yaml and what dev remembers", Run: func(context.Context) []Finding { return h.settings() }},
		{Name: "proxy", About: "proxies and certificates", Run: func(context.Context) []Finding { return h.proxy() }},
		{Name: "watching", About: "the system's limits for watching files", Run: func(context.Context) []Finding { return h.watching() }},
		{Name: "leftovers", About: "sockets and temporary files of processes that ended", Run: func(context.Context) []Finding { return h.leftovers() }},
	}
}

// DiskCheck looks at the room that the file systems of folders have.
func (h Host) DiskCheck(name, about string, folders []string) Check {
	return Check{Name: name, About: about, Run: func(context.Context) []Finding { return h.disk(folders) }}
}

func (h Host) disk(folders []string) []Finding {
	var found []Finding
	for _, dir := range folders {
		free, size, err := h.FreeSpace(dir)
		if err != nil || size == 0 {
			continue // of another host, or not there yet
		}
		if free >= leastFree && free*100/size >= leastPercent {
			continue
		}
		severity := Doubtful
		if free < leastFree/4 {
			severity = Broken
		}
		found = append(found, Finding{
			Severity: severity, What: fmt.Sprintf("%s has %s left of %s", dir, units.HumanSize(float64(free)), units.HumanSize(float64(size))),
			Cause: "images, build cache, volumes or snapshots fill it",
			Fix:   "docker system df shows what; docker builder prune, docker image prune, dev snapshot ls --all",
		})
	}
	return found
}

func (h Host) dns(ctx context.Context) []Finding {
	const registry = "registry-1.docker.io"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := h.LookupHost(ctx, "localhost"); err != nil {
		return []Finding{{Severity: Broken, What: "localhost has no address", Cause: err.Error(), Fix: "add the line `127.0.0.1 localhost` to the hosts file"}}
	}
	if _, err := h.LookupHost(ctx, registry); err != nil && h.Getenv("HTTPS_PROXY")+h.Getenv("https_proxy") == "" {
		return []Finding{{
			Severity: Doubtful, What: registry + " cannot be resolved", Cause: err.Error(),
			Fix: "check the network, a VPN's name servers and /etc/resolv.conf; without it images come only from mirrors and the local store",
		}}
	}
	return nil
}

// dockerConfig is what is looked at of docker's settings.
type dockerConfig struct {
	Auths       map[string]json.RawMessage `json:"auths"`
	CredsStore  string                     `json:"credsStore"`
	CredHelpers map[string]string          `json:"credHelpers"`
}

func (h Host) credentials() []Finding {
	name := filepath.Join(h.DockerDir, "config.json")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c dockerConfig
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return []Finding{{Severity: Broken, What: name + " cannot be read", Cause: err.Error(), Fix: "mend the file, or move it away and docker login again"}}
	}
	var found []Finding
	missing := func(helper string) bool {
		_, err := h.LookPath("docker-credential-" + helper)
		return helper != "" && err != nil
	}
	if missing(c.CredsStore) {
		found = append(found, lostHelper(name, c.CredsStore, "credsStore", ""))
	}
	for _, registry := range slices.Sorted(maps.Keys(c.CredHelpers)) {
		if missing(c.CredHelpers[registry]) {
			found = append(found, lostHelper(name, c.CredHelpers[registry], "credHelpers", registry))
		}
	}
	if info, err := os.Stat(name); err == nil && len(c.Auths) > 0 && c.CredsStore == "" && info.Mode().Perm()&0o077 != 0 && filepath.Separator == '/' {
		found = append(found, Finding{
			Severity: Doubtful, What: name + " may be read by others", Cause: "it has credentials and mode " + info.Mode().Perm().String(), Fix: "chmod 600 " + name,
			RepairText: "give " + name + " mode 600", Repair: func(context.Context) error { return os.Chmod(name, 0o600) },
		})
	}
	return found
}

// lostHelper is a credential helper that is named and not there, as after a product was uninstalled.
func lostHelper(file, helper, key, registry string) Finding {
	of := key
	if registry != "" {
		of += " of " + registry
	}
	return Finding{
		Severity: Broken, What: fmt.Sprintf("docker-credential-%s is not installed", helper), Cause: fmt.Sprintf("%s names it (%s), perhaps for a product that was removed", file, of),
		Fix: "install it, or take it out of the file and docker login again", RepairText: fmt.Sprintf("take %s out of %s; the file as it is stays as %s.bak", of, file, file),
		Repair: func(context.Context) error { return dropHelper(file, key, registry) },
	}
}

// dropHelper takes a helper out of docker's settings and leaves everything else in them as it is.
func dropHelper(file, key, registry string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	if helpers, ok := all[key].(map[string]any); ok && registry != "" {
		delete(helpers, registry)
	} else {
		delete(all, key)
	}
	changed, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(file+".bak", data, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(file, append(changed, '\n'), 0o600)
}

func (h Host) settings() []Finding {
	var found []Finding
	name := filepath.Join(h.Dir, config.FileName)
	c, err := config.Load(name)
	if err != nil {
		found = append(found, Finding{Severity: Broken, What: "the settings cannot be read", Cause: err.Error(), Fix: "mend " + name})
	}
	for _, file := range c.Engine.CACertificates {
		if pem, err := os.ReadFile(file); err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
			found = append(found, Finding{
				Severity: Broken, What: "no certificate can be read from " + file, Cause: causeOf(err, "it has none in PEM form"), Fix: "put it there, or take it out of ca-certificates in " + name,
			})
		}
	}
	for _, state := range []string{config.StateName, "environments.json"} {
		file := filepath.Join(h.Dir, state)
		data, err := os.ReadFile(file)
		if err == nil && !json.Valid(data) {
			found = append(found, Finding{
				Severity: Broken, What: file + " is damaged", Cause: "it is no JSON", Fix: "move it away: dev begins a new one",
				RepairText: "move " + file + " to " + file + ".bak", Repair: func(context.Context) error { return os.Rename(file, file+".bak") },
			})
		}
	}
	return found
}

func causeOf(err error, otherwise string) string {
	if err != nil {
		return err.Error()
	}
	return otherwise
}

func (h Host) proxy() []Finding {
	var found []Finding
	get := func(name string) string {
		if v := h.Getenv(name); v != "" {
			return v
		}
		return h.Getenv(strings.ToLower(name))
	}
	used := false
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		value := get(name)
		used = used || value != ""
		u, err := url.Parse(value)
		if value != "" && !strings.Contains(value, "://") {
			u, err = url.Parse("http://" + value)
		}
		if err != nil || value != "" && u.Hostname() == "" {
			found = append(found, Finding{Severity: Broken, What: name + " is no address of a proxy", Cause: fmt.Sprintf("its value is %q", redacted(value)), Fix: "set it to http://HOST:PORT"})
		}
	}
	if none := get("NO_PROXY"); used && !strings.Contains(none, "localhost") && !strings.Contains(none, "127.0.0.1") {
		found = append(found, Finding{
			Severity: Doubtful, What: "requests to localhost go through the proxy", Cause: "NO_PROXY does not have localhost", Fix: "export NO_PROXY=localhost,127.0.0.1," + none,
		})
	}
	for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"} {
		if file := h.Getenv(name); file != "" {
			if _, err := os.Stat(file); err != nil {
				found = append(found, Finding{Severity: Broken, What: name + " leads nowhere", Cause: err.Error(), Fix: "unset " + name + ", or put the certificates there"})
			}
		}
	}
	return found
}

// redacted is an address without what may be a password.
func redacted(value string) string {
	if at := strings.LastIndex(value, "@"); at >= 0 {
		return "…" + value[at:]
	}
	return value
}

func (h Host) watching() []Finding {
	var found []Finding
	for _, limit := range []struct {
		name  string
		least int
	}{{"max_user_watches", leastWatches}, {"max_user_instances", leastInstance}} {
		data, err := h.ReadFile("/proc/sys/fs/inotify/" + limit.name)
		if err != nil {
			continue // another system
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && n < limit.least {
			found = append(found, Finding{
				Severity: Doubtful, What: fmt.Sprintf("fs.inotify.%s is %d", limit.name, n), Cause: "large source trees need more for dev watch, editors and test runners",
				Fix: fmt.Sprintf("echo fs.inotify.%s=%d | sudo tee -a /etc/sysctl.d/60-inotify.conf && sudo sysctl --system", limit.name, limit.least*8),
			})
		}
	}
	return found
}

// staleAfter is how old something temporary is before it is taken to be left over.
const staleAfter = 24 * time.Hour

func (h Host) leftovers() []Finding {
	var found []Finding
	_ = filepath.WalkDir(h.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not ours to judge
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it has just gone
		}
		old := h.Now().Sub(info.ModTime()) > staleAfter
		switch {
		case strings.HasPrefix(d.Name(), ".tmp-") && old:
			found = append(found, Finding{
				Severity: Doubtful, What: path + " is left over", Cause: "a command was interrupted while it wrote", Fix: "remove it",
				RepairText: "remove " + path, Repair: func(context.Context) error { return os.RemoveAll(path) },
			})
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type()&fs.ModeSocket != 0 && old && h.Connect(path) != nil:
			found = append(found, Finding{
				Severity: Doubtful, What: "nobody listens on " + path, Cause: "a process that made it ended early", Fix: "remove it",
				RepairText: "remove " + path, Repair: func(context.Context) error { return os.Remove(path) },
			})
		}
		return nil
	})
	return found
}
