// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package shellenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]Shell{
		"": POSIX, "/bin/bash": POSIX, "zsh": POSIX, "/usr/bin/fish": Fish, "powershell": PowerShell, "pwsh": PowerShell,
		`C:\Windows\System32\cmd.exe`: Cmd, "tcsh": Tcsh, "/bin/csh": Tcsh, "emacs": Emacs, "PowerShell.exe": PowerShell,
	} {
		if got := Parse(name); got != want {
			t.Errorf("Parse(%q) = %s, want %s", name, got, want)
		}
	}
}

// TestScript compares with what docker-machine prints, byte by byte.
func TestScript(t *testing.T) {
	vars := []Variable{{Name: "DOCKER_HOST", Value: "unix:///home/me/docker.sock"}, {Name: "DOCKER_CERT_PATH", Unset: true}}
	for shell, want := range map[Shell]string{
		POSIX: "export DOCKER_HOST=\"unix:///home/me/docker.sock\"\nunset DOCKER_CERT_PATH\n" +
			"# Run this command to configure your shell: \n# eval $(dev machine env x)\n",
		Fish: "set -gx DOCKER_HOST \"unix:///home/me/docker.sock\";\nset -e DOCKER_CERT_PATH;\n" +
			"# Run this command to configure your shell: \n# eval (dev machine env x)\n",
		PowerShell: "$Env:DOCKER_HOST = \"unix:///home/me/docker.sock\"\nRemove-Item Env:\\\\DOCKER_CERT_PATH\n" +
			"# Run this command to configure your shell: \n# & dev machine env x | Invoke-Expression\n",
		Cmd: "SET DOCKER_HOST=unix:///home/me/docker.sock\nSET DOCKER_CERT_PATH=\n" +
			"REM Run this command to configure your shell: \nREM \t@FOR /f \"tokens=*\" %i IN ('dev machine env x') DO @%i\n",
		Tcsh: "setenv DOCKER_HOST \"unix:///home/me/docker.sock\";\nunsetenv DOCKER_CERT_PATH;\n" +
			": Run this command to configure your shell: \n: eval `dev machine env x`\n",
		Emacs: "(setenv \"DOCKER_HOST\" \"unix:///home/me/docker.sock\")\n(setenv \"DOCKER_CERT_PATH\" nil)\n" +
			";; Run this command to configure your shell: \n;; (with-temp-buffer (shell-command \"dev machine env x\" (current-buffer)) (eval-buffer))\n",
	} {
		if got := Script(shell, vars, []string{"dev", "machine", "env", "x"}); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", shell, got, want)
		}
	}
	got := Script(POSIX, nil, []string{`C:\Program Files\dev.exe`, "env"})
	if want := `# eval $("C:\Program Files\dev.exe" env)`; !strings.Contains(got, want) {
		t.Errorf("a path with a space gives %q, want %q in it", got, want)
	}
}

// TestHostileValues runs the script in the shells that are installed: a value arrives as it is, and nothing in it is carried out.
func TestHostileValues(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("runs Unix shells")
	}
	value := `a "b" $HOME $(touch hurt) ` + "`touch hurt`" + ` 'c' \d !e %f% &`
	for shell, program := range map[Shell]string{POSIX: "sh", Fish: "fish", Tcsh: "tcsh"} {
		path, err := exec.LookPath(program)
		if err != nil {
			continue // the others' lines are compared above
		}
		cmd := exec.Command(path, "-c", shell.set("X", value)+"\nprintenv X")
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSuffix(string(out), "\n") != value {
			t.Errorf("%s: X is %q (%v), want %q", program, out, err, value)
		}
		if _, err := os.Stat(filepath.Join(cmd.Dir, "hurt")); err == nil {
			t.Errorf("%s: what the value says was run", program)
		}
	}
	for shell, want := range map[Shell]string{
		PowerShell: "$Env:X = \"a`\"`$b``\"",
		Cmd:        `SET X=a"$b` + "`",
		Emacs:      `(setenv "X" "a\"$b` + "`" + `")`,
	} {
		if got := shell.set("X", `a"$b`+"`"); got != want {
			t.Errorf("%s: %s, want %s", shell, got, want)
		}
	}
}

func TestDetect(t *testing.T) {
	env := map[string]string{"SHELL": "/usr/bin/zsh"}
	getenv := func(name string) string { return env[name] }
	if got := Detect(getenv); got != POSIX {
		t.Errorf("zsh is %s", got)
	}
	env["__fish_bin_dir"] = "/usr/bin"
	if got := Detect(getenv); got != Fish {
		t.Errorf("inside fish it is %s", got)
	}
}
