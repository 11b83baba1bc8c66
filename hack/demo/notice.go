// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// noticePort is where the notice is served in its container.
const noticePort = "8081"

// serveNotice serves what is in a file, as programs do that reload while somebody works on them: it reads the file when it starts, and again when the
// system tells of a change; never because somebody asks. It is the demo's service "notice" in the machine.
func serveNotice(ctx context.Context, file string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	// the folder: editors replace files
	if err := watcher.Add(filepath.Dir(file)); err != nil {
		return fmt.Errorf("watch %q: %w", file, err)
	}
	var notice atomic.Value
	reload := func() {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Print(err)
			return
		}
		notice.Store(text)
	}
	notice.Store([]byte(nil))
	reload()
	server := &http.Server{Addr: ":" + noticePort, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(notice.Load().([]byte)) // who has gone needs no answer
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	for {
		select {
		case event := <-watcher.Events:
			log.Print(event)
			if event.Name == file {
				reload()
			}
		case err := <-watcher.Errors:
			return fmt.Errorf("watch %q: %w", file, err)
		case err := <-ended:
			return err
		case <-ctx.Done():
			return server.Close()
		}
	}
}

// reloads edits the file on this host that the service watches in its container, and waits until it serves what was written.
func (m *machineDemo) reloads(ctx context.Context, text string) error {
	heading("Editing " + filepath.Join("site", "notice.txt") + " on this host, which a program in a container watches")
	began := time.Now()
	if err := write(filepath.Join(m.project, "site", "notice.txt"), text+"\n"); err != nil {
		return err
	}
	page, err := m.await(ctx, m.noticeAddress(), func(page string) bool { return page == text+"\n" })
	if err != nil {
		return fmt.Errorf("the program in the container did not reload site/notice.txt by a file event: it serves %q, and %q was written: %w", page, text, err)
	}
	fmt.Printf("  reloaded by a file event, and read from here, within %s: %s", took(began), page)
	return nil
}

func (m *machineDemo) noticeAddress() string { return "http://localhost:" + m.noticeHostPort + "/" }

// patience is how long the demo waits for what an emulated machine on a busy host does.
const patience = 3 * time.Minute

// await reads a page until it is as wanted, and returns the last that was read.
func (m *machineDemo) await(ctx context.Context, address string, wanted func(page string) bool) (page string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		got, failed := read(ctx, address)
		if failed == nil {
			page = got
			if wanted(page) {
				return page, nil
			}
			failed = fmt.Errorf("%s does not show it after %s", address, patience)
		}
		if ctx.Err() == nil {
			err = failed
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return page, err
		case <-again.C:
		}
	}
}

func took(began time.Time) time.Duration { return time.Since(began).Round(10 * time.Millisecond) }

// copyFile makes a copy, by a second name where the file system allows.
func copyFile(to, from string) (err error) {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close() // the first error says more
		return err
	}
	return out.Close()
}
