// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// fastPair runs both sides of a fast link over a pipe.
func fastPair(t *testing.T, host, guest []byte, service string, refusal error) (asked string, a, b net.Conn, hostErr, guestErr error) {
	t.Helper()
	a, b = net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if asked, guestErr = FastAccept(b, guest); guestErr != nil {
			b.Close()
			return
		}
		guestErr = FastReply(b, refusal)
	}()
	if hostErr = FastDial(a, host, service); hostErr != nil {
		a.Close()
	}
	<-done
	return asked, a, b, hostErr, guestErr
}

func TestFastLink(t *testing.T) {
	secret, other := bytes.Repeat([]byte{7}, FastSecretSize), bytes.Repeat([]byte{8}, FastSecretSize)
	t.Run("agreed", func(t *testing.T) {
		asked, a, b, hostErr, guestErr := fastPair(t, secret, secret, "share x", nil)
		if asked != "share x" || hostErr != nil || guestErr != nil {
			t.Fatalf("asked %q, host %v, guest %v", asked, hostErr, guestErr)
		}
		go func() { _, _ = a.Write([]byte("bytes")) }()
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); err != nil || string(got) != "bytes" {
			t.Fatalf("after the greeting: %q, %v", got, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		_, _, _, hostErr, _ := fastPair(t, secret, secret, "nothing", errors.New("there is no such service"))
		var refusal *FastError
		if !errors.As(hostErr, &refusal) || refusal.Text != "there is no such service" {
			t.Fatalf("host: %v", hostErr)
		}
	})
	t.Run("a guest with another secret", func(t *testing.T) {
		_, _, _, hostErr, guestErr := fastPair(t, secret, other, "docker", nil)
		if !errors.Is(hostErr, ErrFastSecret) || guestErr == nil {
			t.Fatalf("host: %v, guest: %v", hostErr, guestErr)
		}
	})
	t.Run("a guest without a secret", func(t *testing.T) {
		if _, _, _, hostErr, guestErr := fastPair(t, secret, nil, "docker", nil); hostErr == nil || guestErr == nil {
			t.Fatalf("host: %v, guest: %v", hostErr, guestErr)
		}
	})
}

// TestFastLinkImpostor: who does not know the secret cannot use the guest's own proof, nor what it saw of other links.
func TestFastLinkImpostor(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, FastSecretSize)
	a, b := net.Pipe()
	defer a.Close()
	result := make(chan error, 1)
	go func() {
		defer b.Close()
		_, err := FastAccept(b, secret)
		result <- err
	}()
	if _, err := a.Write(append([]byte(fastMark), nonce()...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, fastNonce+32)
	if _, err := io.ReadFull(a, answer); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(answer[fastNonce:]); err != nil { // the guest's proof, sent back
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, ErrFastSecret) {
		t.Fatalf("the guest took its own proof: %v", err)
	}
}

func FuzzFastAccept(f *testing.F) {
	f.Add([]byte(fastMark + strings.Repeat("n", fastNonce) + strings.Repeat("p", 32) + "\x00\x06docker"))
	f.Fuzz(func(t *testing.T, data []byte) {
		service, err := FastAccept(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), io.Discard}, bytes.Repeat([]byte{7}, FastSecretSize))
		if err == nil {
			t.Fatalf("%q was let in without the secret", service)
		}
	})
}
