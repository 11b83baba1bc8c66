// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"io"
	"strings"
)

// parseDetachKeys reads keys as users and the docker configuration write them: characters, or ctrl- with a letter or one of @ [ \ ] ^ _,
// separated by commas.
func parseDetachKeys(text string) ([]byte, error) {
	var keys []byte
	for _, key := range strings.Split(text, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case !ctrl && len(key) == 1:
			keys = append(keys, key[0])
		case ctrl && len(name) == 1 && (name[0] >= 'a' && name[0] <= 'z' || strings.Contains(`@[\]^_`, name)):
			keys = append(keys, strings.ToUpper(name)[0]-'@') // as a terminal does
		case key == "DEL":
			keys = append(keys, 127)
		default:
			return nil, fmt.Errorf("detach keys %q: %q is no key; want keys such as ctrl-p,ctrl-q, separated by commas", text, key)
		}
	}
	return keys, nil
}

// detachReader hands on what is read until the keys come, which it keeps: then it returns [ErrDetached]. A beginning of the keys is held
// back until the next byte shows whether it is one.
type detachReader struct {
	r    io.Reader
	keys []byte
	held int    // how many of the keys have been read
	out  []byte // what is to be handed on
	err  error  // what comes after it
}

// Read implements [io.Reader].
func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.r.Read(p)
		d.take(p[:n], err)
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

// take looks for the keys in what was read.
func (d *detachReader) take(b []byte, err error) {
	d.err = err
	d.out = d.out[:0]
	for _, c := range b {
		if c != d.keys[d.held] {
			d.out = append(d.out, d.keys[:d.held]...)
			d.held = 0
		}
		if c != d.keys[d.held] {
			d.out = append(d.out, c)
			continue
		}
		if d.held++; d.held == len(d.keys) {
			d.err = ErrDetached
			return
		}
	}
	if err != nil {
		d.out = append(d.out, d.keys[:d.held]...)
		d.held = 0
	}
}
