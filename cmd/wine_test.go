// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// prngStub is the library that Go programs get random bytes from on Windows, and that Wine 8 lacks.
const prngStub = `#include <windows.h>
#include <ntsecapi.h>
BOOL WINAPI ProcessPrng(PBYTE p, SIZE_T n) { return RtlGenRandom(p, (ULONG)n); }
`

// winePatience bounds one program under Wine.
const winePatience = 2 * time.Minute

// wine is a Windows of the test's own.
type wine struct {
	t      *testing.T
	prefix string
}

// newWine makes one. DEV_TEST_WINE=1 asks for it; it needs wine and a MinGW compiler (apt install wine64 wine gcc-mingw-w64-x86-64).
func newWine(t *testing.T) *wine {
	t.Helper()
	if os.Getenv("DEV_TEST_WINE") == "" {
		t.Skip("runs the Windows program under Wine: set DEV_TEST_WINE=1")
	}
	for _, program := range []string{"wine", "x86_64-w64-mingw32-gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %v", program, err)
		}
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("Wine runs programs for amd64")
	}
	w := &wine{t, filepath.Join(t.TempDir(), "wine")}
	w.run(".", "wine", "wineboot", "-i")
	source := filepath.Join(t.TempDir(), "prng.c")
	if err := os.WriteFile(source, []byte(prngStub), 0o644); err != nil {
		t.Fatal(err)
	}
	w.run(".", "x86_64-w64-mingw32-gcc", "-shared", "-o", filepath.Join(w.prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll"), source, "-ladvapi32")
	t.Cleanup(func() { w.run(".", "wineserver", "-k") })
	return w
}

// run runs a program for Windows by wine, or one of this host that makes something for it, and returns what it printed.
func (w *wine) run(dir string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), winePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WINEPREFIX="+w.prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree=;mshtml=", "DISPLAY=", "DEV_TEST_WINE=1", "DEV_HOME=")
	if args[0] == "go" {
		cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	}
	out, err := cmd.CombinedOutput()
	if err != nil && args[0] != "wineserver" {
		w.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

// TestWine runs dev.exe, and the host agent's named pipes, on what stands in for Windows.
func TestWine(t *testing.T) {
	w := newWine(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "dev.exe")
	w.run(".", "go", "build", "-o", program, "./dev")
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("name: shop\nservices: {web: {image: nginx, volumes: [\".:/site\"]}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"version", "dev version "},
		{"config", "type: bind"},
		{"config --services", "web\n"},
		{"machine ls", "NAME   ACTIVE   DRIVER"},
		{"machine env -u --shell powershell", "Remove-Item Env:\\\\DOCKER_HOST\n"},
		{"machine env -u --shell powershell", " | Invoke-Expression"},
		{"machine env -u --shell cmd", "SET COMPOSE_CONVERT_WINDOWS_PATHS=\n"},
		{"machine env -u --shell cmd", "REM \t@FOR /f \"tokens=*\" %i IN ("},
	} {
		if got := w.run(dir, append([]string{"wine", program}, strings.Fields(c.args)...)...); !strings.Contains(got, c.want) {
			t.Errorf("dev.exe %s prints %q, want %q in it", c.args, got, c.want)
		}
	}
	pipes := filepath.Join(dir, "pipes.exe")
	w.run(".", "go", "test", "-c", "-o", pipes, "../hostagent/daemon")
	if got := w.run(dir, "wine", pipes, "-test.run", "TestNamedPipe", "-test.v"); !strings.Contains(got, "--- PASS: TestNamedPipe") {
		t.Errorf("named pipes: %s", got)
	}
}
