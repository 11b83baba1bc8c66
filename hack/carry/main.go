// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command carry makes the programs that release builds of dev carry (package program), and a file for `go build -overlay` that puts them in the
// place of the empty ones. Usage, from the repository's root:
//
//	carry -os OS -arch ARCH -o FOLDER [BUILD FLAG...]
//
// The folder gets the programs, what is carried of them, and overlay.json. What has not changed is not written again.
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
	"github.com/seed71221737/dev/internal/program"
)

// place is the folder of the empty files.
const place = "internal/program"

func main() {
	goos := flag.String("os", runtime.GOOS, "system to build for")
	arch := flag.String("arch", runtime.GOARCH, "architecture to build for")
	dir := flag.String("o", "", "folder for the results")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *goos, *arch, *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "carry:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, goos, arch, dir string, flags []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	replace := map[string]string{}
	for _, p := range []program.Program{program.Build(), program.HostAgent()} {
		built := filepath.Join(dir, p.Name)
		if err := compile(ctx, goos, arch, built, p.Name, flags); err != nil {
			return err
		}
		if err := pack(built, built+".bin"); err != nil {
			return err
		}
		at, err := filepath.Abs(filepath.Join(place, p.Name+".bin"))
		if err != nil {
			return err
		}
		replace[at] = built + ".bin"
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "overlay.json"), overlay, 0o644)
}

// compile builds a program for a system.
func compile(ctx context.Context, goos, arch, built, name string, flags []string) error {
	args := append([]string{"build"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", built, "./cmd/"+name)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build ./cmd/%s for %s/%s: %w", name, goos, arch, err)
	}
	return nil
}

// pack writes a program as dev carries it: its SHA-256, then itself, compressed.
func pack(built, packed string) error {
	content, err := os.ReadFile(built)
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
