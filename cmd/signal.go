// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interrupts is the one signal handler of the process. The first SIGINT, SIGTERM or SIGHUP cancels the context, so that commands stop
// gracefully; the second does what the running command asked for with onSecond, else ends the process; the third always ends it. While a
// proxy is set, signals belong to a container and touch nothing here.
//
// A nil *interrupts is valid and never sees a signal: tests run commands without one.
type interrupts struct {
	ch   chan os.Signal
	quit chan struct{}
	done chan struct{}
	// abort ends the process: it gives the terminal back first.
	abort func()

	mu     sync.Mutex
	second func()
	proxy  func(os.Signal)
}

// handleInterrupts starts the handler. The returned context ends at the first signal, or with stop, which waits for the handler's goroutine.
func handleInterrupts(parent context.Context, abort func()) (ctx context.Context, i *interrupts, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	i = &interrupts{
		ch: make(chan os.Signal, 4), quit: make(chan struct{}), done: make(chan struct{}), abort: abort,
	}
	signal.Notify(i.ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go i.loop(cancel)
	return ctx, i, func() {
		signal.Stop(i.ch)
		close(i.quit)
		<-i.done
		cancel()
	}
}

func (i *interrupts) loop(cancel context.CancelFunc) {
	defer close(i.done)
	count := 0
	for {
		select {
		case <-i.quit:
			return
		case s := <-i.ch:
			if i.proxied(s) {
				continue
			}
			count++
			switch {
			case count == 1:
				cancel()
			case count == 2 && i.runSecond():
			default:
				i.abort()
			}
		}
	}
}

func (i *interrupts) proxied(s os.Signal) bool {
	i.mu.Lock()
	f := i.proxy
	i.mu.Unlock()
	if f == nil {
		return false
	}
	f(s)
	return true
}

func (i *interrupts) runSecond() bool {
	i.mu.Lock()
	f := i.second
	i.mu.Unlock()
	if f == nil {
		return false
	}
	f()
	return true
}

// send is a signal that comes by another way than the system's.
func (i *interrupts) send(s os.Signal) {
	select {
	case i.ch <- s:
	case <-i.quit:
	}
}

// onSecond lets f answer the second signal, in the handler's goroutine, until release is called.
func (i *interrupts) onSecond(f func()) (release func()) {
	if i == nil {
		return func() {}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.second = f
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.second = nil
	}
}

// forward gives every signal that can be passed on to f, in the handler's goroutine, until release is called.
func (i *interrupts) forward(f func(os.Signal)) (release func()) {
	if i == nil {
		return func() {}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.proxy = f
	signal.Notify(i.ch, forwardable...)
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.proxy = nil
		signal.Reset(forwardable...)
		signal.Notify(i.ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	}
}
