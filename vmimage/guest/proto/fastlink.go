// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The fast link carries bytes between host and guest that SSH would carry too slowly under emulation: both sides prove that they know the secret of the
// machine's seed, the host names a service, and from then on there are plain bytes. They are not encrypted, because the network between host and guest
// exists only within the host agent and the hypervisor; containers reach the port, but do not know the secret.
const (
	// FastPort is where the guest's agent listens (TCP).
	FastPort = 24
	// FastSecretSize is the length of Seed.LinkSecret in bytes.
	FastSecretSize = 32
	// FastDocker is the service that is the engine's socket. FastShare, with a space and a Mount as JSON after it, is a share's file server.
	FastDocker = "docker"
	FastShare  = "share"
	// FastControl is the service that speaks the control protocol, as Subsystem does over SSH.
	FastControl = "control"
)

// Layout: the host sends fastMark and a nonce; the guest answers with a nonce and its proof; the host sends its proof and the service's name after its
// length (uint16, big endian); the guest answers with the length of an error's text, 0 for none, and that text.
const (
	fastMark    = "DEVFAST1"
	fastNonce   = 32
	maxFastName = 8 << 10
)

// ErrFastSecret says that the other side of a fast link does not know the secret.
var ErrFastSecret = errors.New("the other side does not know this machine's secret")

// FastError is the guest's refusal of a service.
type FastError struct{ Service, Text string }

func (e *FastError) Error() string {
	return fmt.Sprintf("open %q in the machine: %s", e.Service, e.Text)
}

// proof shows that who computes it knows the secret; side keeps one side's proof from being the other's.
func proof(secret []byte, side string, host, guest []byte) []byte {
	h := hmac.New(sha256.New, secret)
	for _, part := range [][]byte{[]byte(fastMark), []byte(side), host, guest} {
		_, _ = h.Write(part) // never fails
	}
	return h.Sum(nil)
}

func nonce() []byte {
	b := make([]byte, fastNonce)
	_, _ = rand.Read(b) // never fails
	return b
}

// FastDial is the host's part on a connection to FastPort: when it returns nil, the connection is the service's. The caller sets deadlines, and closes the
// connection after an error. A guest that refuses the service is a *FastError.
func FastDial(conn io.ReadWriter, secret []byte, service string) error {
	if len(secret) != FastSecretSize || len(service) > maxFastName {
		return fmt.Errorf("open %q in the machine: the secret or the name has the wrong size", service)
	}
	mine := nonce()
	if _, err := conn.Write(append([]byte(fastMark), mine...)); err != nil {
		return fmt.Errorf("greet the machine: %w", err)
	}
	answer := make([]byte, fastNonce+sha256.Size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("greet the machine: %w", err)
	}
	theirs, shown := answer[:fastNonce], answer[fastNonce:]
	if !hmac.Equal(shown, proof(secret, "guest", mine, theirs)) {
		return ErrFastSecret
	}
	if _, err := conn.Write(appendText(proof(secret, "host", mine, theirs), service)); err != nil {
		return fmt.Errorf("open %q in the machine: %w", service, err)
	}
	text, err := readText(conn, maxFastName)
	if err != nil {
		return fmt.Errorf("open %q in the machine: %w", service, err)
	}
	if text != "" {
		return &FastError{Service: service, Text: text}
	}
	return nil
}

// FastAccept is the guest's part: it returns the service that the host asks for, which FastReply answers. The caller sets deadlines.
func FastAccept(conn io.ReadWriter, secret []byte) (service string, err error) {
	if len(secret) != FastSecretSize {
		return "", errors.New("accept a link: this machine has no secret")
	}
	hello := make([]byte, len(fastMark)+fastNonce)
	if _, err := io.ReadFull(conn, hello); err != nil {
		return "", fmt.Errorf("accept a link: %w", err)
	}
	if string(hello[:len(fastMark)]) != fastMark {
		return "", errors.New("accept a link: it is no link of dev's")
	}
	theirs, mine := hello[len(fastMark):], nonce()
	if _, err := conn.Write(append(append([]byte(nil), mine...), proof(secret, "guest", theirs, mine)...)); err != nil {
		return "", fmt.Errorf("accept a link: %w", err)
	}
	shown := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, shown); err != nil {
		return "", fmt.Errorf("accept a link: %w", err)
	}
	if !hmac.Equal(shown, proof(secret, "host", theirs, mine)) {
		return "", ErrFastSecret
	}
	if service, err = readText(conn, maxFastName); err != nil {
		return "", fmt.Errorf("accept a link: %w", err)
	}
	return service, nil
}

// FastReply tells the host that its service begins, or why it does not.
func FastReply(conn io.Writer, refusal error) error {
	text := ""
	if refusal != nil {
		text = refusal.Error()
		if len(text) > maxFastName {
			text = text[:maxFastName]
		}
	}
	_, err := conn.Write(appendText(nil, text))
	return err
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

func readText(r io.Reader, limit int) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > limit {
		return "", fmt.Errorf("a text has %d bytes, %d are the most", n, limit)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	return string(text), nil
}
