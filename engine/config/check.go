// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// Error is a mistake in the file.
type Error struct {
	File string
	Line int // 0 when it has no place
	Msg  string
	// Near is the known key that an unknown one resembles, if any.
	Near string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Hint names the next step.
func (e *Error) Hint() string {
	if e.Near != "" {
		return fmt.Sprintf("did you mean %q?", e.Near)
	}
	return "docs/configuration.md describes every key"
}

var yamlLine = lazyregexp.New(`^(?:yaml: )?line (\d+): `)

// syntaxError gives an error of the YAML library the form of ours.
func syntaxError(file string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:\n  ")
	msg, _, _ = strings.Cut(msg, "\n")
	e := &Error{File: file, Msg: strings.TrimPrefix(msg, "yaml: ")}
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		e.Line, _ = strconv.Atoi(m[1]) // the pattern has only digits
		e.Msg = msg[len(m[0]):]
	}
	return e
}

// checkKeys refuses keys that the file's type does not have.
func checkKeys(file string, root *yaml.Node) error {
	return checkNode(file, "", root, reflect.TypeFor[Config]())
}

func checkNode(file, path string, n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, item := range n.Content {
			if err := checkNode(file, path, item, t.Elem()); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		return checkMapping(file, path, n, t)
	}
	return nil
}

func checkMapping(file, path string, n *yaml.Node, t reflect.Type) error {
	fields := fieldsOf(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			continue
		}
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		field, ok := fields[key.Value]
		if !ok {
			return &Error{File: file, Line: key.Line, Msg: fmt.Sprintf("unknown key %q", full), Near: nearest(key.Value, fields)}
		}
		if err := checkNode(file, full, value, field); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf maps a struct's keys to their types.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		if tag, ok := t.Field(i).Tag.Lookup("yaml"); ok {
			fields[tag] = t.Field(i).Type
		}
	}
	return fields
}

// nearest is the key that takes the fewest edits, when they are few.
func nearest(key string, fields map[string]reflect.Type) string {
	best, least := "", len(key)/2+1
	for name := range fields {
		if d := distance(strings.ToLower(strings.ReplaceAll(key, "_", "-")), name); d < least || d == least && name < best {
			best, least = name, d
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// position finds the line of a key.
type position struct {
	name string
	doc  *yaml.Node
}

// errorf is an error at the line of a key such as "engine.log.max-size".
func (p position) errorf(key, format string, args ...any) error {
	n, line := p.doc, 0
	for part := range strings.SplitSeq(key, ".") {
		if n == nil || n.Kind != yaml.MappingNode {
			break
		}
		i := slices.IndexFunc(n.Content, func(k *yaml.Node) bool { return k.Value == part })
		if i < 0 || i+1 >= len(n.Content) {
			break
		}
		line, n = n.Content[i].Line, n.Content[i+1]
	}
	return &Error{File: p.name, Line: line, Msg: key + ": " + fmt.Sprintf(format, args...)}
}

var sizePattern = lazyregexp.New(`^[1-9][0-9]{0,15}[kmgKMG]?$`)

// validate refuses values that the engine would refuse, or worse, accept.
func (e *Engine) validate(at position) error {
	for _, check := range []func(position) error{e.validateRegistries, e.validateProxy, e.validateNetwork, e.validateRest} {
		if err := check(at); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) validateRegistries(at position) error {
	for _, m := range e.RegistryMirrors {
		if !isPlainURL(m) {
			return at.errorf("engine.registry-mirrors", "%q is not a URL such as https://mirror.example.com", m)
		}
	}
	for _, r := range e.InsecureRegistries {
		if !isRegistry(r) {
			return at.errorf("engine.insecure-registries", "%q is neither a host, host:port nor a CIDR", r)
		}
	}
	return nil
}

// isPlainURL tells whether s is a web address without user, query or fragment.
func isPlainURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil
}

var hostPattern = lazyregexp.New(`^[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?$`)

func isRegistry(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
		host = h
	}
	_, err := netip.ParseAddr(host)
	return err == nil || hostPattern.MatchString(host)
}

func (e *Engine) validateProxy(at position) error {
	for key, value := range map[string]string{"engine.proxy.http": e.Proxy.HTTP, "engine.proxy.https": e.Proxy.HTTPS} {
		if value == "" {
			continue
		}
		u, err := url.Parse(value)
		if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
			return at.errorf(key, "it is not a URL such as http://proxy.example.com:3128") // not quoted: it may hold a password
		}
	}
	return nil
}

func (e *Engine) validateNetwork(at position) error {
	const key = "engine.address-pools"
	for i, p := range e.AddressPools {
		switch {
		case !p.Base.IsValid() || p.Base != p.Base.Masked():
			return at.errorf(key, "base %q is not a network such as 10.200.0.0/16", p.Base)
		case p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen()-2:
			return at.errorf(key, "size %d of %s is not between %d and %d", p.Size, p.Base, p.Base.Bits(), p.Base.Addr().BitLen()-2)
		}
		for _, other := range e.AddressPools[:i] {
			if other.Base.Overlaps(p.Base) {
				return at.errorf(key, "%s and %s overlap", other.Base, p.Base)
			}
		}
	}
	if f := e.Firewall; !slices.Contains([]string{"", "auto", "nftables", "iptables"}, f) {
		return at.errorf("engine.firewall", "%q is not auto, nftables or iptables", f)
	}
	return nil
}

func (e *Engine) validateRest(at position) error {
	if s := e.Log.MaxSize; s != "" && !sizePattern.MatchString(s) {
		return at.errorf("engine.log.max-size", "%q is not a size such as 10m", s)
	}
	if n := e.Log.MaxFile; n < 0 || n > 1000 {
		return at.errorf("engine.log.max-file", "%d is not between 1 and 1000", n)
	}
	return nil
}
