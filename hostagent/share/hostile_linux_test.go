// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// TestAnswersThatNobodyTakes: a guest that asks and does not listen is not listened to either, before this process holds much for it, and goes on when it listens.
func TestAnswersThatNobodyTakes(t *testing.T) {
	const size, most = 1 << 20, 110 << 20
	data := make([]byte, size)
	for what, ask := range map[string]func(i int, ident uint64) wire.Request{
		"reads": func(_ int, ident uint64) wire.Request {
			return wire.Request{Op: wire.OpRead, Path: "f", Ident: ident, Size: size}
		},
		"writes": func(i int, _ uint64) wire.Request {
			return wire.Request{Op: wire.OpWrite, Path: "g", Ident: uint64(i), Data: data} // of files that are not there
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/f", bytes.Repeat([]byte("x"), size), 0o644); err != nil {
				t.Fatal(err)
			}
			g := greeted(t, Options{Folder: dir})
			ident := g.do(wire.Request{Op: wire.OpLookup, Name: "f"}).Attr.Ident
			const requests = 150
			before := heap()
			var sent atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := range requests {
					g.send(ask(i, ident))
					sent.Add(1)
				}
			}()
			for last, same := int64(-1), 0; same < 10; { // until it does not get rid of more
				time.Sleep(50 * time.Millisecond)
				if now := sent.Load(); now != last || now == 0 {
					last, same = now, 0
					continue
				}
				same++
			}
			if grown := heap() - before; grown > most {
				t.Errorf("%d MiB are held for a guest that does not listen", grown>>20)
			}
			for range requests {
				if res := g.receive(); what == "reads" && (res.Errno != 0 || len(res.Data) != size) {
					t.Fatalf("request %d: error %d, %d bytes", res.ID, res.Errno, len(res.Data))
				}
			}
			<-done
			g.do(wire.Request{Op: wire.OpPing})
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// never is a source of events without any.
type never struct{}

func (never) Next(ctx context.Context) ([]wire.Event, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestManyWaitForEvents: requests that wait take no place from others, and only some may.
func TestManyWaitForEvents(t *testing.T) {
	g := greeted(t, Options{Folder: t.TempDir(), Events: never{}})
	const polls = 300
	go func() {
		for range polls {
			g.send(wire.Request{Op: wire.OpEvents})
		}
	}()
	for range polls - maxPolls {
		if res := g.receive(); res.Errno != wire.EIO {
			t.Fatalf("request %d: error %d", res.ID, res.Errno)
		}
	}
	g.do(wire.Request{Op: wire.OpPing})
}

// TestHugeFolder: a folder of many pages comes in frames of bounded size, each name once.
func TestHugeFolder(t *testing.T) {
	dir := t.TempDir()
	const files = pageNames + 500
	for i := range files {
		f, err := os.Create(fmt.Sprintf("%s/%05d", dir, i))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	g := greeted(t, Options{Folder: dir})
	g.send(wire.Request{Op: wire.OpReaddir, Flags: wire.FlagSubtree})
	seen := map[string]bool{}
	for more := true; more; {
		res := g.receive()
		if res.Errno != 0 || len(res.Data) > 2*listingFrame {
			t.Fatalf("error %d, %d bytes", res.Errno, len(res.Data))
		}
		more = res.More
		parts, err := wire.ParseListings(res.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if part.Path != "" || part.Folder.Mode&wire.TypeMask != wire.TypeFolder {
				t.Fatalf("a part of %q", part.Path)
			}
			for _, e := range part.Entries {
				if seen[e.Name] {
					t.Fatalf("%q is there twice", e.Name)
				}
				seen[e.Name] = true
			}
		}
	}
	if len(seen) != files {
		t.Errorf("%d of %d files are listed", len(seen), files)
	}
}
