// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Keyring holds the public keys that may sign an archive.
type Keyring struct{ entities openpgp.EntityList }

// ParseKeyring reads binary OpenPGP key rings.
func ParseKeyring(rings ...[]byte) (Keyring, error) {
	var k Keyring
	for i, data := range rings {
		list, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err != nil {
			return Keyring{}, fmt.Errorf("read key ring %d: %w", i+1, err)
		}
		k.entities = append(k.entities, list...)
	}
	return k, nil
}

// Release is a suite's verified table of contents.
type Release struct {
	Suite, Codename string
	Date            time.Time
	// ValidUntil is zero where the suite says none.
	ValidUntil time.Time
	// SignedBy is the fingerprint of the key whose signature was checked, in upper-case hexadecimal digits.
	SignedBy string
	files    map[string]fileEntry
}

// fileEntry is a file that the release names.
type fileEntry struct {
	sha256 string
	size   int64
}

// UnsignedError says that a file's signature is absent, wrong, or by a key that is not trusted.
type UnsignedError struct {
	Name string
	Err  error
}

func (e *UnsignedError) Error() string {
	return fmt.Sprintf("verify signature of %q: %v", e.Name, e.Err)
}

func (e *UnsignedError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *UnsignedError) Hint() string {
	return "the mirror serves something Debian did not sign: try another one with --mirror"
}

// VerifyRelease checks an InRelease file's signature and reads it; name stands in errors. A key that expired after it signed is accepted: an old
// release does not become false. Freshness is the caller's to judge (Release.ValidUntil).
func VerifyRelease(name string, data []byte, keys Keyring) (*Release, error) {
	block, rest := clearsign.Decode(data)
	if block == nil {
		return nil, &UnsignedError{Name: name, Err: errors.New("it carries no signature")}
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, &UnsignedError{Name: name, Err: errors.New("there is text after the signature")}
	}
	signature, err := readAll(block.ArmoredSignature.Body, 1<<20)
	if err != nil {
		return nil, &UnsignedError{Name: name, Err: err}
	}
	signer, err := checkSignatures(block.Bytes, signature, keys)
	if err != nil {
		return nil, &UnsignedError{Name: name, Err: err}
	}
	r, err := parseRelease(block.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("parse %q: %w", name, err)
	}
	r.SignedBy = strings.ToUpper(fmt.Sprintf("%x", signer.PrimaryKey.Fingerprint))
	return r, nil
}

// checkSignatures looks for one good signature: a release is signed by several keys, of which older key rings know some.
func checkSignatures(signed, signatures []byte, keys Keyring) (*openpgp.Entity, error) {
	packets := packet.NewOpaqueReader(bytes.NewReader(signatures))
	failure := errors.New("it holds no signature")
	for n := 0; n < 16; n++ {
		p, err := packets.Next()
		if err != nil {
			break
		}
		var one bytes.Buffer
		if err := p.Serialize(&one); err != nil {
			return nil, err
		}
		// Signing time, not now, decides whether the key was valid: see VerifyRelease.
		config := &packet.Config{Time: signingTime(one.Bytes())}
		signer, err := openpgp.CheckDetachedSignature(keys.entities, bytes.NewReader(signed), &one, config)
		if err == nil {
			return signer, nil
		}
		failure = err
	}
	return nil, failure
}

// signingTime returns a clock that stands when the signature was made, or nil for the present.
func signingTime(signature []byte) func() time.Time {
	p, err := packet.Read(bytes.NewReader(signature))
	if err != nil {
		return nil
	}
	s, ok := p.(*packet.Signature)
	if !ok {
		return nil
	}
	return func() time.Time { return s.CreationTime }
}

func parseRelease(text []byte) (*Release, error) {
	r := &Release{files: map[string]fileEntry{}}
	stanzas := 0
	err := ReadStanzas(bytes.NewReader(text), func(s Stanza) error {
		if stanzas++; stanzas > 1 {
			return errors.New("it has more than one paragraph")
		}
		r.Suite, r.Codename = s["suite"], s["codename"]
		var err error
		if r.Date, err = parseDate(s["date"]); err != nil {
			return fmt.Errorf("date: %w", err)
		}
		if v := s["valid-until"]; v != "" {
			if r.ValidUntil, err = parseDate(v); err != nil {
				return fmt.Errorf("valid-until: %w", err)
			}
		}
		return r.addFiles(s["sha256"])
	})
	if err == nil && stanzas == 0 {
		err = errors.New("it is empty")
	}
	return r, err
}

func (r *Release) addFiles(field string) error {
	for _, line := range strings.Split(field, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		size, err := strconv.ParseInt(f[min(1, len(f)-1)], 10, 64)
		if len(f) != 3 || err != nil || size < 0 || !validSHA256(f[0]) {
			return fmt.Errorf("sha256: line %.60q is not a digest, a size and a name", line)
		}
		r.files[f[2]] = fileEntry{sha256: f[0], size: size}
	}
	return nil
}

func parseDate(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC1123, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("parse %q: %w", s, err)
	}
	return t.UTC(), nil
}

func validSHA256(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
