// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// DiffServices lists the fields that differ between what a container was made from and what is wanted, as far as the configuration hash covers
// them: by path (environment.DEBUG, ports[0].published), ordered, with values that may be secret masked. An item of a list has its place in
// the new list, or, if it is gone, in the old one.
func DiffServices(before, after types.ServiceConfig) []Change {
	d := differ{}
	d.compare("", values(before), values(after))
	return d.changes
}

// values is the service as plain values, without what does not count.
func values(s types.ServiceConfig) map[string]any {
	b, err := json.Marshal(hashed(s))
	if err != nil {
		return nil // cannot be: compose-go marshals all it loads
	}
	var tree map[string]any
	if json.Unmarshal(b, &tree) != nil {
		return nil
	}
	return tree
}

type differ struct{ changes []Change }

// compare adds the changes between two values at a path; nil is an absent one.
func (d *differ) compare(path string, a, b any) {
	if reflect.DeepEqual(a, b) {
		return
	}
	mapA, okA := a.(map[string]any)
	mapB, okB := b.(map[string]any)
	if okA && okB || (okA && b == nil || okB && a == nil) && len(mapA)+len(mapB) > 0 && opensMap(path) {
		for _, key := range unionKeys(mapA, mapB) {
			d.compareKey(path, key, mapA, mapB)
		}
		return
	}
	listA, okA := a.([]any)
	listB, okB := b.([]any)
	if okA && okB {
		d.compareLists(path, listA, listB)
		return
	}
	d.add(path, a, b, a != nil, b != nil)
}

// opensMap reports whether a section that appears or goes is told key by key: those whose keys the user chose.
func opensMap(path string) bool {
	switch path {
	case "environment", "labels", "annotations", "sysctls", "storage_opt", "networks", "ulimits":
		return true
	}
	return false
}

func (d *differ) compareKey(path, key string, a, b map[string]any) {
	valueA, inA := a[key]
	valueB, inB := b[key]
	next := key
	if path != "" {
		next = path + "." + key
	}
	if inA == inB || valueA != nil || valueB != nil {
		d.compare(next, valueA, valueB)
		return
	}
	if path != "" { // a key without a value came or went: environment.DEBUG
		d.add(next, nil, nil, inA, inB)
	}
}

// compareLists skips what the lists have in common at their ends, pairs what is left in order, and tells the rest as gone or new.
func (d *differ) compareLists(path string, a, b []any) {
	start := 0
	for start < len(a) && start < len(b) && reflect.DeepEqual(a[start], b[start]) {
		start++
	}
	endA, endB := len(a), len(b)
	for endA > start && endB > start && reflect.DeepEqual(a[endA-1], b[endB-1]) {
		endA, endB = endA-1, endB-1
	}
	for i := start; i < max(endA, endB); i++ {
		item := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case i >= endA:
			d.add(item, nil, b[i], false, true)
		case i >= endB:
			d.add(item, a[i], nil, true, false)
		default:
			d.compare(item, a[i], b[i])
		}
	}
}

func (d *differ) add(path string, a, b any, inA, inB bool) {
	d.changes = append(d.changes, Change{
		Field: path, Old: render(path, a, inA), New: render(path, b, inB), OldSet: inA, NewSet: inB,
	})
}

// render writes a value on one line, masked.
func render(path string, v any, set bool) string {
	if !set || v == nil {
		return ""
	}
	name := path[strings.LastIndexAny(path, ".[")+1:]
	if section, key, ok := strings.Cut(path, "."); ok && opensMap(section) {
		name = key // keys of labels hold dots themselves
	}
	switch v := mask(name, v).(type) {
	case string:
		return v
	default:
		b, _ := json.Marshal(v)
		return string(b)
	}
}

// masked stands in place of what may be secret.
const masked = "***"

// mask replaces what may be secret in a value of the given name, at any depth.
func mask(name string, v any) any {
	switch v := v.(type) {
	case string:
		return maskText(name, v)
	case map[string]any:
		m := map[string]any{}
		for key, value := range v {
			m[key] = mask(key, value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = mask(name, item)
		}
		return list
	}
	return v
}

var (
	// secretName matches names of variables, labels and options that hold secrets.
	secretName = lazyregexp.New(`(?i)pass|secret|token|credential|private|apikey|api_key|accesskey|basicauth|` +
		`(^|[^a-z])(key|keys|auth|pwd|pw|dsn|salt|cert|pin|cookie|session|license|sig|signature|webhook)($|[^a-z])`)
	// userInfo matches the password in a URL.
	userInfo = lazyregexp.New(`(://[^\s/:@]*:)[^\s/@]+@`)
	// assignment matches NAME=VALUE and --name VALUE in command lines and lists, where the name is that of a secret.
	assignment = lazyregexp.New(`(?i)([\w-]*(?:pass(?:word|wd)?|secret|token|api[_-]?key|credentials?)[\w-]*(?:=|:\s*|\s+))("[^"]*"|'[^']*'|[^\s,;&]+)`)
	// secretLook matches what is a secret by its own look: private keys, the tokens of well-known services, JWTs.
	secretLook = lazyregexp.New(`-----BEGIN [A-Z ]*PRIVATE KEY|\b(gh[a-z]|github_pat|glpat|xox[a-z]|sk|rk|pk)[-_][A-Za-z0-9_-]{16,}|` +
		`\bAKIA[0-9A-Z]{16}\b|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{4,}`)
)

func maskText(name, text string) string {
	if text != "" && (secretName.MatchString(name) || secretLook.MatchString(text)) {
		return masked
	}
	text = userInfo.Get().ReplaceAllString(text, "${1}"+masked+"@")
	return assignment.Get().ReplaceAllString(text, "${1}"+masked)
}

// unionKeys lists the keys of both maps in order.
func unionKeys[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
