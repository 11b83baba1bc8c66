// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// writeIdentity gives the machine its name, id and keys. It can be repeated, with others.
func writeIdentity(s *proto.Seed) error {
	return errors.Join(
		unix.Sethostname([]byte(s.Hostname)),
		os.WriteFile("/run/hostname", []byte(s.Hostname+"\n"), 0o644),
		os.WriteFile("/run/machine-id", []byte(s.MachineID+"\n"), 0o444),
		os.WriteFile("/run/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 "+s.Hostname+"\n"), 0o644),
		os.WriteFile(HostKeyFile, []byte(s.HostKey), 0o600),
		os.WriteFile(AuthorizedKeysFile, []byte(strings.Join(s.AuthorizedKeys, "\n")+"\n"), 0o600),
		os.WriteFile(ProxyFile, []byte(proxyFile(s.Proxy)), 0o600),
		os.WriteFile(LinkSecretFile, s.LinkSecret, 0o600),
	)
}

// proxyFile is the proxy settings as environment variables, in both cases, sorted.
func proxyFile(proxy map[string]string) string {
	var lines []string
	for k, v := range proxy {
		lines = append(lines, k+"="+v+"\n", strings.ToLower(k)+"="+v+"\n")
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "")
}

// Where certificate authorities are: the image's own are kept aside once the host's are mounted over them.
const (
	trustBundle = "/etc/ssl/certs/ca-certificates.crt"
	trustImage  = "/run/dev/ca-image.crt"
	trustMerged = "/run/dev/ca-certificates.crt"
)

// trust adds certificate authorities to the image's: a file in memory is mounted over the read-only one. It can be repeated, with others.
func trust(pem string) error {
	if _, err := os.Stat(trustImage); err == nil {
		_, err := trustAgain(pem)
		return err
	}
	if pem == "" {
		return nil
	}
	have, err := os.ReadFile(trustBundle)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(trustMerged, mergedTrust(have, pem), 0o644), os.WriteFile(trustImage, have, 0o644)); err != nil {
		return err
	}
	return unix.Mount(trustMerged, trustBundle, "", unix.MS_BIND, "")
}

func mergedTrust(image []byte, pem string) []byte {
	if pem == "" {
		return image
	}
	return append(append(slices.Clone(image), '\n'), pem...)
}

// trustAgain changes the file that is mounted, where it is another one.
func trustAgain(pem string) (changed bool, err error) {
	image, err := os.ReadFile(trustImage)
	if err != nil {
		return false, err
	}
	want := mergedTrust(image, pem)
	if have, err := os.ReadFile(trustMerged); err == nil && bytes.Equal(have, want) {
		return false, nil
	}
	return true, os.WriteFile(trustMerged, want, 0o644)
}

// Renew brings a machine that was restored to what its new seed says: it gets its identity, network, trust and settings anew, and where the engine was
// started with others, the engine is started again. It can be repeated. Warnings name what has to wait for the next boot.
func Renew(s *proto.Seed) (warnings []string, err error) {
	if s.Hostname == "" || s.MachineID == "" {
		return nil, &proto.Error{Code: proto.CodeBad, Text: "the new seed has no identity"}
	}
	_, statErr := os.Stat(trustImage)
	trusted := statErr == nil
	changed := !trusted && s.Certificates != ""
	if trusted {
		changed, err = trustAgain(s.Certificates)
	} else {
		err = trust(s.Certificates)
	}
	if err = errors.Join(err, writeIdentity(s), renewNetwork(s.Network)); err != nil {
		return nil, fmt.Errorf("renew the machine: %w", err)
	}
	if err := applySysctls(s.Sysctl); err != nil {
		warnings = append(warnings, fmt.Sprintf("kernel settings: %v", err))
	}
	settings, err := daemonJSON(s.Engine, s.Proxy)
	if err != nil {
		return warnings, err
	}
	have, err := os.ReadFile(daemonConfig)
	if err == nil && bytes.Equal(have, settings) && !changed {
		return warnings, nil
	}
	if err := os.WriteFile(daemonConfig, settings, 0o600); err != nil {
		return warnings, fmt.Errorf("write the engine's settings: %w", err)
	}
	if containersRun() {
		return append(warnings, "the engine's settings (proxies, certificate authorities) have changed since the machine was suspended, and take effect when it is restarted"), nil
	}
	return warnings, endEngine()
}

// renewNetwork gives the link its address, route and name servers again; an address that it has besides goes. A link with a lease keeps it.
func renewNetwork(n *proto.Network) error {
	if n == nil {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network cards: %w", err)
	}
	i := slices.IndexFunc(links, isCard)
	if i < 0 {
		return errors.New("there is no network card")
	}
	link := links[i]
	if err := apply(link, *n); err != nil {
		return err
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.String() != n.Address.Addr().String() {
			if err := netlink.AddrDel(link, &a); err != nil {
				return fmt.Errorf("remove address %q: %w", a.IP, err)
			}
		}
	}
	return nil
}

// containersRun says whether the engine has containers that run: each has a folder here.
func containersRun() bool {
	tasks, _ := filepath.Glob("/run/containerd/io.containerd.runtime.v2.task/*/*")
	return len(tasks) > 0
}

// engineEndWait is how long an engine without containers may take to end.
const engineEndWait = 20 * time.Second

// enginePID is where dockerd notes its process.
const enginePID = "/run/docker.pid"

// endEngine ends dockerd, which PID 1 starts again at once, and waits for that it is gone.
func endEngine() error {
	data, err := os.ReadFile(enginePID)
	if err != nil {
		return nil // none runs, and the next one reads the new settings
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("read %q: %w", enginePID, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("end the engine: %w", err)
	}
	for deadline := time.Now().Add(engineEndWait); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(time.Until(deadline), 0).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the engine's end: %w", err)
		case n == 0:
			return fmt.Errorf("wait for the engine's end: it takes longer than %v", engineEndWait)
		default:
			return nil
		}
	}
}
