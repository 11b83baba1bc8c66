// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package autostart starts machines when their user logs in: by a systemd user unit on Linux, a launchd agent on macOS, a task of the Task
// Scheduler on Windows.
//
// What is written is a pure function of an Entry (Text, Path) for each system, so that every system's can be looked at on any; only Enable and
// Disable act, and only on the system that they run on. Both may be repeated.
package autostart

import (
	"encoding/xml"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Entry is what starts one machine.
type Entry struct {
	Machine string
	// Command starts the machine and ends when it runs: an absolute program and its arguments.
	Command []string
	// Env are variables that the command needs, NAME=VALUE, such as DEV_HOME.
	Env []string
	// User is the account on Windows, DOMAIN\name.
	User string
}

// label is the entry's name: the unit's, the agent's or the task's.
func label(goos, machine string) string {
	switch goos {
	case "darwin":
		return "io.dev.machine." + machine
	case "windows":
		return `\dev\machine ` + machine
	}
	return "dev-machine-" + machine + ".service"
}

// Path is the file that holds the entry, below the user's home folder (or, if it is set, XDG_CONFIG_HOME's on Linux). Windows keeps tasks
// elsewhere: there it is empty.
func Path(goos, home, configHome, machine string) string {
	switch goos {
	case "darwin":
		return filepath.Join(home, "Library", "LaunchAgents", label(goos, machine)+".plist")
	case "windows":
		return ""
	}
	if configHome == "" {
		configHome = filepath.Join(home, ".config")
	}
	return filepath.Join(configHome, "systemd", "user", label(goos, machine))
}

// Text is the entry as the system reads it.
func Text(goos string, e Entry) string {
	switch goos {
	case "darwin":
		return launchd(e)
	case "windows":
		return task(e)
	}
	return systemd(e)
}

// systemd is a user unit. The machine's host agent outlives the command that starts it and belongs to the unit until that is stopped, which at the
// end of the session gives the machine an orderly end.
func systemd(e Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Written by: dev machine autostart on %s
[Unit]
Description=dev machine %[1]s

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=10min
TimeoutStopSec=3min
`, e.Machine)
	for _, v := range e.Env {
		fmt.Fprintf(&b, "Environment=%s\n", systemdQuote(v))
	}
	fmt.Fprintf(&b, "ExecStart=%s\n", systemdLine(e.Command))
	fmt.Fprintf(&b, "ExecStop=%s\n", systemdLine(stopCommand(e.Command)))
	b.WriteString("\n[Install]\nWantedBy=default.target\n")
	return b.String()
}

// stopCommand is the command with stop for start.
func stopCommand(command []string) []string {
	stop := slices.Clone(command)
	if i := slices.Index(stop, "start"); i >= 0 {
		stop[i] = "stop"
	}
	return stop
}

func systemdLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strings.ReplaceAll(systemdQuote(w), "$", "$$")
	}
	return strings.Join(quoted, " ")
}

// systemdQuote writes a word so that systemd reads it back as it is; see systemd.syntax(7).
func systemdQuote(word string) string {
	word = strings.ReplaceAll(word, "%", "%%")
	if !strings.ContainsAny(word, " \t\"'\\;") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}

// launchd is an agent of the user's session. AbandonProcessGroup leaves the host agent running when the command has ended.
func launchd(e Entry) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
`)
	fmt.Fprintf(&b, "\t<string>%s</string>\n\t<key>ProgramArguments</key>\n\t<array>\n", escape(label("darwin", e.Machine)))
	for _, w := range e.Command {
		fmt.Fprintf(&b, "\t\t<string>%s</string>\n", escape(w))
	}
	b.WriteString("\t</array>\n")
	if len(e.Env) > 0 {
		b.WriteString("\t<key>EnvironmentVariables</key>\n\t<dict>\n")
		for _, v := range e.Env {
			name, value, _ := strings.Cut(v, "=")
			fmt.Fprintf(&b, "\t\t<key>%s</key>\n\t\t<string>%s</string>\n", escape(name), escape(value))
		}
		b.WriteString("\t</dict>\n")
	}
	b.WriteString("\t<key>RunAtLoad</key>\n\t<true/>\n\t<key>AbandonProcessGroup</key>\n\t<true/>\n\t<key>ProcessType</key>\n\t<string>Interactive</string>\n</dict>\n</plist>\n")
	return b.String()
}

// task is a task for schtasks /create /xml. Tasks have no environment of their own: variables are set by cmd before the command.
func task(e Entry) string {
	program, arguments := e.Command[0], windowsLine(e.Command[1:])
	if len(e.Env) > 0 {
		var set strings.Builder
		for _, v := range e.Env {
			fmt.Fprintf(&set, `set "%s" && `, v)
		}
		program, arguments = "cmd.exe", fmt.Sprintf(`/d /c "%s%s"`, set.String(), windowsLine(e.Command))
	}
	principal := ""
	if e.User != "" {
		principal = fmt.Sprintf("\n      <UserId>%s</UserId>", escape(e.User))
	}
	return fmt.Sprintf(`<?xml version="1.0"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>%s</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>%s
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal>%[2]s
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT15M</ExecutionTimeLimit>
    <Hidden>true</Hidden>
  </Settings>
  <Actions>
    <Exec>
      <Command>%[3]s</Command>
      <Arguments>%[4]s</Arguments>
    </Exec>
  </Actions>
</Task>
`, escape("Starts the dev machine "+e.Machine+" at logon"), principal, escape(program), escape(arguments))
}

// windowsLine joins words so that Windows programs split them again at the same places.
func windowsLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; w == "" || strings.ContainsAny(w, " \t") {
			quoted[i] = `"` + w + `"`
		}
	}
	return strings.Join(quoted, " ")
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}

// programIn is the first word of the command in an entry's text, "" where there is none.
func programIn(goos, text string) string {
	if goos == "darwin" {
		_, rest, _ := strings.Cut(text, "<key>ProgramArguments</key>")
		_, rest, _ = strings.Cut(rest, "<string>")
		word, _, _ := strings.Cut(rest, "</string>")
		var plain string
		if xml.Unmarshal([]byte("<w>"+word+"</w>"), &plain) != nil {
			return ""
		}
		return plain
	}
	_, rest, _ := strings.Cut(text, "\nExecStart=")
	line, _, _ := strings.Cut(rest, "\n")
	return firstWord(strings.NewReplacer("%%", "%", "$$", "$").Replace(line))
}

// firstWord undoes systemdQuote for the first word of a line.
func firstWord(line string) string {
	if !strings.HasPrefix(line, `"`) {
		word, _, _ := strings.Cut(line, " ")
		return word
	}
	var word strings.Builder
	for i := 1; i < len(line) && line[i] != '"'; i++ {
		if line[i] == '\\' && i+1 < len(line) {
			i++
		}
		word.WriteByte(line[i])
	}
	return word.String()
}
