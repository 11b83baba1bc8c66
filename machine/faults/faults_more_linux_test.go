// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// killAtSnapshot kills something while a snapshot is saved, and then while one is restored.
func killAtSnapshot(victim string) func(*testing.T, *lab) {
	return atMoments(victim, func(t *testing.T, l *lab, kill func(...string)) {
		kill("snapshot", "save", "box", "--name", "begun")
		l.dev(t, "machine", "snapshot", "save", "box", "--name", "whole")
		kill("snapshot", "restore", "--stop", "-y", "box", "whole")
		l.dev(t, "machine", "stop", "--cold", "box")
		l.forgetSnapshots(t)
		l.up(t)
	})
}

// tornSnapshots damages snapshots of a machine in several ways: none of them replaces anything, and the machine goes on.
func tornSnapshots(t *testing.T, l *lab) {
	l.write(t, "before-the-snapshot")
	proof := l.sleeper(t)
	before := proof()
	for name, damage := range map[string]string{
		"torn":     `truncate -s $(( $(stat -c %s data.img) / 2 )) data.img`,
		"altered":  `printf 'not what was there' | dd of=data.img bs=1 seek=1049600 conv=notrunc status=none`,
		"no-sums":  `truncate -s 100 data.sums`,
		"no-words": `truncate -s 20 snapshot.json`,
	} {
		l.dev(t, "machine", "snapshot", "save", "box", "--name", name)
		cmd := exec.Command("sh", "-euc", damage)
		cmd.Dir = l.file("snapshots/" + name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("damage the snapshot: %v: %s", err, out)
		}
		l.fails(t, []string{"machine", "snapshot", "verify", "box", name}, name)
		l.fails(t, []string{"machine", "snapshot", "restore", "--stop", "-y", "box", name}, name)
		l.noJournal(t)
		l.dev(t, "machine", "snapshot", "rm", "box", name)
	}
	l.whole(t, "before-the-snapshot")
	if proof() != before {
		t.Error("the machine was stopped for a snapshot that cannot be restored")
	}
}

// endedByOthers ends the VM the ways that others do: the power button of a user inside, and a signal to QEMU, as its window or a service manager sends.
func endedByOthers(t *testing.T, l *lab) {
	for name, end := range map[string]func(){
		"powered off inside": func() { _, _ = l.try(t, "machine", "ssh", "box", "poweroff") }, // the connection may end with the machine
		"asked to end": func() {
			for _, p := range l.processes(t, "qemu-system") {
				if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		words := strings.ReplaceAll(name, " ", "-")
		l.write(t, words)
		end()
		await(t, "the machine is stopped: "+name, func() bool { return l.status(t).Phase == "stopped" })
		l.whole(t, words)
	}
}

// noQEMU takes QEMU away while the machine is stopped, as a removed package does: for the commands of the test alone.
func noQEMU(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	qemu, err := exec.LookPath("qemu-system-" + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH])
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"start", "doctor"} {
		ctx, cancel := bounded(t)
		cmd := exec.CommandContext(ctx, "unshare", "-m", "sh", "-c", `mount --bind /dev/null "$1" || exit 99; exec "$0" machine "$2" box`, l.program, qemu, command)
		cmd.Env = l.env
		out, err := cmd.CombinedOutput()
		cancel()
		switch {
		case cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 99 || strings.Contains(string(out), "unshare"):
			t.Skipf("needs a mount namespace: %v: %s", err, out)
		case cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), filepath.Base(qemu)) || !strings.Contains(string(out), "install"):
			t.Errorf("dev machine %s without QEMU: %v\n%s", command, err, out)
		}
	}
}

// lostTerminal starts the machine and takes the terminal away from the command: by a hangup, an interrupt, and closed outputs.
func lostTerminal(t *testing.T, l *lab) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		l.dev(t, "machine", "stop", "box")
		r := l.begin(t, "machine", "start", "box")
		time.Sleep(400 * time.Millisecond)
		if err := syscall.Kill(-r.cmd.Process.Pid, sig); err != nil {
			t.Log(err) // it was faster
		}
		t.Logf("dev machine start, %v: %v\n%s", sig, <-r.ended, r)
		l.whole(t)
	}
	l.dev(t, "machine", "stop", "box")
	ctx, cancel := bounded(t)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", `exec "$0" machine start box <&- >&- 2>&-`, l.program)
	cmd.Env = l.env
	if err := cmd.Run(); err != nil {
		t.Logf("dev machine start without outputs: %v", err) // it cannot say anything; what counts is the machine
	}
	l.whole(t)
}

// expired puts certificates in place that ended long ago.
func expired(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	old := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)}
	der, err1 := x509.CreateCertificate(rand.Reader, old, old, &key.PublicKey, key)
	private, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls/server.pem": {Type: "CERTIFICATE", Bytes: der}, "tls/server-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(l.file(name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.up(t)
	out := l.dev(t, "machine", "config", "--tcp", "box")
	cli, err := exec.Command(dockerCLI(t), append(strings.Fields(out), "version")...).CombinedOutput()
	if err != nil {
		t.Errorf("the TCP socket does not work with new certificates: %v: %s", err, cli)
	}
}

// answering is a DNS server on the loopback that knows one name and gives it an address of its own.
func answering(t *testing.T, at, address string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Skipf("needs port 53 of a loopback address: %v", err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		if len(q.Question) == 1 && q.Question[0].Name == "moved.fault.test." && q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(address)}}
		}
		_ = w.WriteMsg(r) // who asks asks again
	})}
	go func() { _ = s.ActivateAndServe() }() // ends with Shutdown
	t.Cleanup(func() { _ = s.Shutdown() })
}

// movedDNS runs the machine's agent with a resolv.conf of its own and then has it name another server, as a VPN does.
func movedDNS(t *testing.T, l *lab) {
	l.dev(t, "machine", "stop", "box")
	answering(t, "127.53.0.1:53", "192.0.2.1")
	answering(t, "127.53.0.2:53", "192.0.2.2")
	conf := filepath.Join(l.home, "resolv.conf")
	name := func(server string) {
		if err := os.WriteFile(conf, []byte("nameserver "+server+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	name("127.53.0.1")
	ctx, cancel := bounded(t)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "sh", "-c", `mount --bind "$1" /etc/resolv.conf && exec "$0" machine start box`, l.program, conf)
	cmd.Env = l.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace: %v: %s", err, out)
	}
	asks := func(want string) {
		await(t, "a container resolves the name to "+want, func() bool {
			out, err := l.docker(t, "run", "--rm", busybox, "nslookup", "-type=a", "moved.fault.test")
			return err == nil && strings.Contains(out, want)
		})
	}
	asks("192.0.2.1")
	name("127.53.0.2")
	asks("192.0.2.2")
	l.dev(t, "machine", "stop", "box") // the next agent is in the host's own namespace again
}

// hostFullAtRest suspends the machine, and saves a snapshot of it, where the host has no room for either.
func hostFullAtRest(t *testing.T, l *lab) {
	l.write(t, "before-there-was-no-room")
	ballast, back := l.smallDisk(t)
	l.up(t)
	more := ballast + "-more"
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("fallocate -l $(( $(df -Pm %s | awk 'NR==2{print $4}') - 40 ))M %s", filepath.Dir(more), more)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.fails(t, []string{"machine", "suspend", "box"}, "are free")
	l.fails(t, []string{"machine", "snapshot", "save", "box"}, "free")
	l.whole(t, "before-there-was-no-room")
	l.dev(t, "machine", "stop", "box") // it is powered off instead of being saved
	for _, name := range []string{ballast, more} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	l.whole(t, "before-there-was-no-room")
	back()
}

// guestAgentDies kills the machine's own agent, through which the host reaches it and the shared folders are there.
func guestAgentDies(t *testing.T, l *lab) {
	proof := l.sleeper(t)
	before := proof()
	if err := os.WriteFile(filepath.Join(l.shared, "file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := l.docker(t, "run", "-d", "--name", "sharer", "-v", l.shared+":/s", busybox, "sleep", "100000"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _, _ = l.docker(t, "rm", "-f", "sharer") }) // it goes with the machine, too
	old := l.guest(t, guestAgent)
	_, _ = l.try(t, "machine", "ssh", "box", "kill -9 "+old) // the connection ends with it
	await(t, "another agent", func() bool {
		out, err := l.try(t, "machine", "ssh", "box", guestAgent)
		return err == nil && strings.TrimSpace(out) != old
	})
	for _, args := range [][]string{{"run", "--rm", "-v", l.shared + ":/s", busybox}, {"exec", "sharer"}} {
		await(t, "the shared folder is there: docker "+strings.Join(args, " "), func() bool {
			out, err := l.docker(t, append(args, "cat", "/s/file")...)
			return err == nil && strings.Contains(out, "of the host")
		})
	}
	if proof() != before {
		t.Error("the container was started anew")
	}
	l.well(t)
}

// guestAgent prints the process of the agent in a machine.
const guestAgent = `exec 2>/dev/null; for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' < "$p/cmdline")" != "/usr/sbin/dev-guest agent " ] || echo "${p#/proc/}"; done`
