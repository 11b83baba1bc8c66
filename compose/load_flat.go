// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"strings"
)

// A value is kept flat: the fields of a structure that are not zero, each by its number; lists and maps with their lengths, nil unlike empty. Only
// the same program can read it, which is what makes it quick: nothing is looked up by name, and texts are not copied.

// Kinds of values in an interface.
const (
	flatNil = iota
	flatString
	flatBool
	flatInt
	flatInt64
	flatUint64
	flatFloat64
	flatMap
	flatList
)

// flatDynamic are the types that values in an interface may have, by their kind.
var flatDynamic = [...]reflect.Type{
	flatString: reflect.TypeFor[string](), flatBool: reflect.TypeFor[bool](), flatInt: reflect.TypeFor[int](), flatInt64: reflect.TypeFor[int64](),
	flatUint64: reflect.TypeFor[uint64](), flatFloat64: reflect.TypeFor[float64](), flatMap: reflect.TypeFor[map[string]any](), flatList: reflect.TypeFor[[]any](),
}

// flatten writes a value down; ok is false if it holds what cannot be: a hidden field that is set, a channel, a function, a value of an unknown type.
func flatten[T any](v *T) (flat string, ok bool) {
	w := &flatWriter{}
	ok = w.value(reflect.ValueOf(v).Elem())
	return string(w.b), ok
}

// unflatten reads what flatten wrote; nil if that was something else.
func unflatten[T any](flat string) (v *T) {
	defer func() {
		if recover() != nil { // it was not written by flatten, or not for this type
			v = nil
		}
	}()
	v = new(T)
	r := &flatReader{s: flat}
	r.value(reflect.ValueOf(v).Elem())
	if r.s != "" {
		return nil
	}
	return v
}

type flatWriter struct{ b []byte }

func (w *flatWriter) number(n uint64)    { w.b = binary.AppendUvarint(w.b, n) }
func (w *flatWriter) length(n int)       { w.number(uint64(n)) } //nolint:gosec // never negative
func (w *flatWriter) text(s string) bool { w.length(len(s)); w.b = append(w.b, s...); return true }

// value writes a value and reports whether it could.
func (w *flatWriter) value(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return w.text(v.String())
	case reflect.Bool:
		w.number(map[bool]uint64{true: 1}[v.Bool()])
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		w.b = binary.AppendVarint(w.b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		w.number(v.Uint())
	case reflect.Float32, reflect.Float64:
		w.number(math.Float64bits(v.Float()))
	case reflect.Struct:
		return w.structure(v)
	case reflect.Pointer:
		if v.IsNil() {
			w.number(0)
			return true
		}
		w.number(1)
		return w.value(v.Elem())
	case reflect.Slice:
		return w.list(v)
	case reflect.Map:
		return w.mapping(v)
	case reflect.Interface:
		return w.dynamic(v)
	default:
		return false
	}
	return true
}

func (w *flatWriter) structure(v reflect.Value) bool {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() {
			continue
		}
		w.length(i + 1)
		if !f.CanInterface() || !w.value(f) { // hidden fields cannot be set again
			return false
		}
	}
	w.number(0)
	return true
}

func (w *flatWriter) list(v reflect.Value) bool {
	if v.IsNil() {
		w.number(0)
		return true
	}
	w.length(v.Len() + 1)
	for i := range v.Len() {
		if !w.value(v.Index(i)) {
			return false
		}
	}
	return true
}

func (w *flatWriter) mapping(v reflect.Value) bool {
	if v.Type().Key().Kind() != reflect.String {
		return false
	}
	if v.IsNil() {
		w.number(0)
		return true
	}
	w.length(v.Len() + 1)
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		w.text(k.String())
		if !w.value(v.MapIndex(k)) {
			return false
		}
	}
	return true
}

func (w *flatWriter) dynamic(v reflect.Value) bool {
	if v.IsNil() {
		w.number(flatNil)
		return true
	}
	kind := slices.Index(flatDynamic[:], v.Elem().Type())
	if kind < 0 {
		return false
	}
	w.length(kind)
	return w.value(v.Elem())
}

// flatReader reads what a flatWriter wrote. It panics at the end of the text, at what no writer writes, and at fields that are not there.
type flatReader struct{ s string }

func (r *flatReader) number() uint64 {
	var n uint64
	for shift := 0; ; shift += 7 {
		c := r.s[0]
		r.s = r.s[1:]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
}

func (r *flatReader) text() string {
	n := r.number()
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}

// length reads how many values follow, -1 for nil. Each takes a byte at least, so that no text makes much of little.
func (r *flatReader) length() int {
	n := r.number()
	if n > uint64(len(r.s))+1 {
		panic("more values than there is text")
	}
	return int(n) - 1 //nolint:gosec // checked above
}

func (r *flatReader) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(r.text())
	case reflect.Bool:
		v.SetBool(r.number() == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := r.number() // as binary.AppendVarint writes it
		v.SetInt(int64(n>>1) ^ -int64(n&1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.number())
	case reflect.Float32, reflect.Float64:
		v.SetFloat(math.Float64frombits(r.number()))
	case reflect.Struct:
		for i := r.number(); i > 0; i = r.number() {
			r.value(v.Field(int(i - 1))) //nolint:gosec // one that is not there panics
		}
	case reflect.Pointer:
		if r.number() == 1 {
			v.Set(reflect.New(v.Type().Elem()))
			r.value(v.Elem())
		}
	case reflect.Slice:
		r.list(v)
	case reflect.Map:
		r.mapping(v)
	case reflect.Interface:
		if kind := r.number(); kind != flatNil {
			elem := reflect.New(flatDynamic[kind]).Elem()
			r.value(elem)
			v.Set(elem)
		}
	default:
		panic("no value of this kind was written")
	}
}

func (r *flatReader) list(v reflect.Value) {
	n := r.length()
	if n < 0 {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range v.Len() {
		r.value(v.Index(i))
	}
}

func (r *flatReader) mapping(v reflect.Value) {
	n := r.length()
	if n < 0 {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), n))
	key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
	for range n {
		key.SetString(r.text())
		elem.SetZero()
		r.value(elem)
		v.SetMapIndex(key, elem)
	}
}
