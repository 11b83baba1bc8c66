// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// writeTestSeed gives a real guest what it needs to come up.
func writeTestSeed(t *testing.T, _ machine.Dir, link *hostagent.Link) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	disk, err := proto.EncodeSeed(proto.Seed{
		Hostname: "m", HostKey: string(pem.EncodeToMemory(block)), AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))},
		Time: time.Now(), Entropy: make([]byte, 32), DataDisk: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(link.Seed, disk, 0o600); err != nil {
		t.Fatal(err)
	}
}
