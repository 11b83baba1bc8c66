// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// confirm asks a question that is answered by y or n; anything else, and the end of input, is no. The answer may come through a pipe.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { answer <- readLine(a.in) }()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return false, ctx.Err()
	case line := <-answer:
		if !isTerminal(a.in) {
			fmt.Fprintln(a.err)
		}
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	}
}

// readLine reads to the end of a line and not a byte further: what follows is not for the prompt.
func readLine(r io.Reader) string {
	var line []byte
	b := make([]byte, 1)
	for len(line) < 1024 {
		if n, err := r.Read(b); err != nil || n > 0 && b[0] == '\n' {
			break
		} else if n > 0 {
			line = append(line, b[0])
		}
	}
	return string(line)
}
