// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command builder makes the build program that release builds of dev carry (docs/adr/0005-build-program.md), and a file for `go build -overlay` that
// puts it in the place of the empty one. Usage, from the repository's root:
//
//	builder -os OS -arch ARCH -o FOLDER [BUILD FLAG...]
//
// The folder gets dev-build, program.bin and overlay.json. What has not changed is not written again.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// placeholder is the file in whose place the program is put.
const placeholder = "engine/build/program.bin"

func main() {
	goos := flag.String("os", runtime.GOOS, "system to build for")
	arch := flag.String("arch", runtime.GOARCH, "architecture to build for")
	dir := flag.String("o", "", "folder for the result")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *goos, *arch, *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "builder:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, goos, arch, dir string, flags []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "dev-build")
	if err := compile(ctx, goos, arch, program, flags); err != nil {
		return err
	}
	packed := filepath.Join(dir, "program.bin")
	if err := pack(program, packed); err != nil {
		return err
	}
	at, err := filepath.Abs(placeholder)
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {at: packed}})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "overlay.json"), overlay, 0o644)
}

// compile builds the program for a system.
func compile(ctx context.Context, goos, arch, program string, flags []string) error {
	args := append([]string{"build"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", program, "./cmd/dev-build")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build ./cmd/dev-build for %s/%s: %w", goos, arch, err)
	}
	return nil
}

// pack writes a program as dev carries it: its SHA-256, then itself, compressed.
func pack(program, packed string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	if have, err := os.ReadFile(packed); err == nil && bytes.HasPrefix(have, sum[:]) {
		return nil
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	return atomicfile.Write(packed, w.EncodeAll(content, sum[:]), 0o644)
}
