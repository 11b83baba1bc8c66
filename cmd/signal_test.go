// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"os"
	"syscall"
	"testing"
)

func TestInterruptsEscalate(t *testing.T) {
	aborted := make(chan struct{}, 1)
	ctx, i, stop := handleInterrupts(context.Background(), func() { aborted <- struct{}{} })
	defer stop()
	second := make(chan struct{}, 1)
	i.onSecond(func() { second <- struct{}{} })
	i.ch <- os.Interrupt
	<-ctx.Done()
	i.ch <- os.Interrupt
	<-second
	i.ch <- os.Interrupt
	<-aborted
}

func TestInterruptsSecondEndsTheProcessUnlessClaimed(t *testing.T) {
	aborted := make(chan struct{}, 1)
	ctx, i, stop := handleInterrupts(context.Background(), func() { aborted <- struct{}{} })
	defer stop()
	release := i.onSecond(func() { t.Error("a released handler was called") })
	release()
	i.ch <- syscall.SIGTERM
	<-ctx.Done()
	i.ch <- syscall.SIGTERM
	<-aborted
}

func TestInterruptsForwarded(t *testing.T) {
	ctx, i, stop := handleInterrupts(context.Background(), func() { t.Error("aborted") })
	defer stop()
	got := make(chan os.Signal, 2)
	release := i.forward(func(s os.Signal) { got <- s })
	i.ch <- os.Interrupt
	i.ch <- syscall.SIGTERM
	if a, b := <-got, <-got; a != os.Interrupt || b != syscall.SIGTERM {
		t.Errorf("forwarded %v, %v", a, b)
	}
	if ctx.Err() != nil {
		t.Error("a forwarded signal cancelled the command")
	}
	release()
	i.ch <- os.Interrupt
	<-ctx.Done()
}
