// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// hookOutput bounds how much of a hook's output is kept for its error.
const hookOutput = 4 << 10

// HookError tells that a lifecycle hook failed: its command, exit code and the end of its output.
type HookError struct {
	Command []string
	Code    int
	Output  string
}

// Error includes the end of the output: it is all there is to find the fault with.
func (e *HookError) Error() string {
	text := fmt.Sprintf("command %q exited with %d", strings.Join(e.Command, " "), e.Code)
	if out := strings.TrimSpace(e.Output); out != "" {
		text += ": " + out
	}
	return text
}

// runHook runs a command in the container and waits for it. Its output is told as progress, line by line.
func (t *task) runHook(ctx context.Context) error {
	h := t.op.Hook
	created, err := t.api.ExecCreate(ctx, t.id, client.ExecCreateOptions{
		User: h.User, Privileged: h.Privileged, WorkingDir: h.WorkingDir, Cmd: h.Command,
		Env: h.Environment.ToMapping().Values(), AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return err
	}
	conn, err := t.api.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, conn.Close)
	defer stop()

	tail := &tailBuffer{limit: hookOutput}
	lines := &lineWriter{line: func(line []byte) {
		tail.add(line)
		t.progress(compose.Event{Text: string(line)})
	}}
	_, err = stdcopy.StdCopy(lines, lines, conn.Reader)
	lines.flush()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("read the output: %w", err)
	}
	done, err := t.api.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	if done.ExitCode != 0 {
		return &HookError{Command: h.Command, Code: done.ExitCode, Output: tail.String()}
	}
	return nil
}

// tailBuffer keeps the last lines of a text up to a limit.
type tailBuffer struct {
	limit int
	buf   bytes.Buffer
}

func (b *tailBuffer) add(line []byte) {
	b.buf.Write(line)
	b.buf.WriteByte('\n')
	for b.buf.Len() > b.limit {
		if _, err := b.buf.ReadBytes('\n'); err != nil {
			return
		}
	}
}

func (b *tailBuffer) String() string { return b.buf.String() }
