// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package shellenv writes the lines that set a shell's variables, for `eval $(dev machine env)`.
//
// It knows the shells that docker-machine knows and writes the same lines; unlike it, a value may hold any character. It is pure: what is set
// is the caller's business.
package shellenv

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Shell is a kind of command interpreter.
type Shell string

// The shells that differ. Any other name means a POSIX shell.
const (
	POSIX      Shell = "sh"
	Fish       Shell = "fish"
	PowerShell Shell = "powershell"
	Cmd        Shell = "cmd"
	Tcsh       Shell = "tcsh"
	Emacs      Shell = "emacs"
)

// Parse finds the shell of a name or path as --shell and $SHELL have it.
func Parse(name string) Shell {
	name = strings.TrimSuffix(strings.ToLower(filepath.Base(strings.ReplaceAll(name, `\`, "/"))), ".exe")
	switch name {
	case "fish", "powershell", "cmd", "emacs":
		return Shell(name)
	case "pwsh":
		return PowerShell
	case "tcsh", "csh":
		return Tcsh
	}
	return POSIX
}

// Variable is one to set, or with Unset one to take away.
type Variable struct {
	Name, Value string
	Unset       bool
}

// Script is the text for a shell: a line for each variable, then how to use it. command is what the user typed to get the text.
func Script(s Shell, vars []Variable, command []string) string {
	var b strings.Builder
	for _, v := range vars {
		if v.Unset {
			b.WriteString(s.unset(v.Name))
		} else {
			b.WriteString(s.set(v.Name, v.Value))
		}
		b.WriteByte('\n')
	}
	b.WriteString(s.hint(command))
	return b.String()
}

func (s Shell) set(name, value string) string {
	switch s {
	case Fish:
		return fmt.Sprintf(`set -gx %s "%s";`, name, escape(value, `\`, `\"$`))
	case PowerShell:
		return fmt.Sprintf(`$Env:%s = "%s"`, name, escape(value, "`", "`\"$"))
	case Cmd:
		// the hint's FOR puts the line in after cmd has looked for its special characters: they mean nothing any more
		return fmt.Sprintf("SET %s=%s", name, value)
	case Tcsh:
		// tcsh knows no escaping inside "…"
		if strings.ContainsAny(value, "\"$`!\\") {
			return fmt.Sprintf("setenv %s '%s';", name, tcshQuote.Replace(value))
		}
		return fmt.Sprintf(`setenv %s "%s";`, name, value)
	case Emacs:
		return fmt.Sprintf(`(setenv "%s" "%s")`, name, escape(value, `\`, `\"`))
	}
	return fmt.Sprintf(`export %s="%s"`, name, escape(value, `\`, "\\\"$`"))
}

// tcshQuote ends '…' around what has a meaning inside.
var tcshQuote = strings.NewReplacer("'", `'\''`, "!", `\!`)

func (s Shell) unset(name string) string {
	switch s {
	case Fish:
		return "set -e " + name + ";"
	case PowerShell:
		return `Remove-Item Env:\\` + name
	case Cmd:
		return "SET " + name + "="
	case Tcsh:
		return "unsetenv " + name + ";"
	case Emacs:
		return fmt.Sprintf(`(setenv "%s" nil)`, name)
	}
	return "unset " + name
}

// escape puts mark before each of the characters in special.
func escape(value, mark, special string) string {
	var b strings.Builder
	for _, r := range value {
		if strings.ContainsRune(special, r) {
			b.WriteString(mark)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// hint says in a comment how the text is meant to be used.
func (s Shell) hint(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		if words[i] = w; strings.ContainsAny(w, ` \`) {
			words[i] = `"` + w + `"`
		}
	}
	line, comment := strings.Join(words, " "), "#"
	switch s {
	case Fish:
		line = fmt.Sprintf("eval (%s)", line)
	case PowerShell:
		line = fmt.Sprintf("& %s | Invoke-Expression", line)
	case Cmd:
		line, comment = fmt.Sprintf("\t@FOR /f \"tokens=*\" %%i IN ('%s') DO @%%i", line), "REM"
	case Tcsh:
		line, comment = fmt.Sprintf("eval `%s`", line), ":"
	case Emacs:
		line, comment = fmt.Sprintf("(with-temp-buffer (shell-command \"%s\" (current-buffer)) (eval-buffer))", strings.ReplaceAll(line, `"`, `\"`)), ";;"
	default:
		line = fmt.Sprintf("eval $(%s)", line)
	}
	return fmt.Sprintf("%s Run this command to configure your shell: \n%[1]s %s\n", comment, line)
}
