// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// instruction is one instruction of a Dockerfile.
type instruction struct {
	keyword string // lower case
	flags   []string
	args    []string
	text    string // as it stands in the file, continuation lines joined
	heredoc bool   // it brings content along
}

// maxLine bounds a line of a Dockerfile.
const maxLine = 1 << 20

var (
	escapeDirective = lazyregexp.New(`(?i)^#\s*escape\s*=\s*(\S)\s*$`)
	anyDirective    = lazyregexp.New(`^#\s*[a-zA-Z][a-zA-Z0-9]*\s*=`)
	// heredocWord begins a here-document: <<EOF, <<-"EOF".
	heredocWord = lazyregexp.New(`(?:^|\s)<<-?["']?([A-Za-z_][A-Za-z0-9_]*)["']?`)
)

// readInstructions reads the instructions of a Dockerfile: comments and empty lines left out, continued lines joined, here-documents skipped. It does not
// judge them; the build does.
func readInstructions(r io.Reader) ([]instruction, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	escape, directives := `\`, true
	var list []instruction
	var whole strings.Builder
	for lines.Scan() {
		line := strings.TrimPrefix(lines.Text(), "\ufeff")
		trimmed := strings.TrimSpace(line)
		if directives {
			if m := escapeDirective.FindStringSubmatch(trimmed); m != nil {
				escape = m[1]
			}
			directives = anyDirective.MatchString(trimmed)
		}
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		if rest, more := strings.CutSuffix(strings.TrimRight(line, " \t"), escape); more {
			whole.WriteString(rest)
			continue
		}
		whole.WriteString(line)
		i := newInstruction(strings.TrimSpace(whole.String()))
		whole.Reset()
		for _, m := range heredocWord.Get().FindAllStringSubmatch(i.heredocs(), -1) {
			i.heredoc = true
			for lines.Scan() && strings.TrimLeft(lines.Text(), "\t") != m[1] {
			}
		}
		list = append(list, i)
	}
	if whole.Len() > 0 {
		list = append(list, newInstruction(strings.TrimSpace(whole.String())))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the Dockerfile: %w", err)
	}
	return list, nil
}

// heredocs is where the instruction may begin here-documents.
func (i instruction) heredocs() string {
	switch i.keyword {
	case "copy", "add", "run":
		return i.text
	}
	return ""
}

// newInstruction splits a line into keyword, flags and arguments; the latter may be a JSON array.
func newInstruction(text string) instruction {
	keyword, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	i := instruction{keyword: strings.ToLower(keyword), text: text}
	for rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "--"); rest = strings.TrimSpace(rest) {
		var flag string
		flag, rest, _ = strings.Cut(rest, " ")
		i.flags = append(i.flags, flag)
	}
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &i.args) == nil {
		return i
	}
	i.args = splitWords(rest)
	return i
}

// splitWords splits at spaces outside of quotes, and takes the quotes away.
func splitWords(text string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	started := false
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, started = r, true
		case quote == 0 && r == ' ':
			if started {
				words = append(words, word.String())
				word.Reset()
			}
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}
