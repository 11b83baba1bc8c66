// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package baseimage gives an engine the image that the examples build on, debian:bookworm-slim: pulled where a registry answers, else made with
// mmdebstrap from Debian's packages, with the same content and the host's own package sources. It serves the demo, the tests and the
// benchmarks; dev does not import it.
package baseimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

// Ref is the image's name.
const Ref = "debian:bookworm-slim"

// suite is the release of Debian that Ref is.
const suite = "bookworm"

const (
	pullTimeout = 3 * time.Minute
	makeTimeout = 10 * time.Minute
)

// Ensure makes sure that the engine has the image. What it makes it keeps as a tar in cacheDir, for the next engine. What it does is told to
// progress, one line each.
func Ensure(ctx context.Context, c *client.Client, cacheDir string, progress io.Writer) error {
	if _, err := c.ImageInspect(ctx, Ref); err == nil {
		return nil
	}
	tar := filepath.Join(cacheDir, "debian-bookworm-slim-"+runtime.GOARCH+".tar")
	if _, err := os.Stat(tar); err != nil {
		fmt.Fprintf(progress, "pulling %s\n", Ref)
		pullErr := pull(ctx, c)
		if pullErr == nil {
			return nil
		}
		fmt.Fprintf(progress, "cannot be pulled (%v)\nmaking it from Debian's packages with mmdebstrap; this takes a minute\n", pullErr)
		if err := bootstrap(ctx, tar); err != nil {
			return fmt.Errorf("make %s: %w", Ref, err)
		}
	}
	if err := load(ctx, c, tar); err != nil {
		return fmt.Errorf("load %s from %q: %w", Ref, tar, err)
	}
	return nil
}

func pull(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	response, err := c.ImagePull(ctx, Ref, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer response.Close()
	return drain(response)
}

// load makes the image from a tar of its root file system; what the real one says of itself has to be added.
func load(ctx context.Context, c *client.Client, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	response, err := c.ImageImport(ctx, client.ImageImportSource{Source: file, SourceName: "-"}, Ref, client.ImageImportOptions{
		Changes: []string{
			"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			`CMD ["bash"]`,
		},
	})
	if err != nil {
		return err
	}
	defer response.Close()
	return drain(response)
}

// drain reads the engine's stream of messages to its end; an error in it is the call's.
func drain(r io.Reader) error {
	for messages := json.NewDecoder(r); ; {
		var m struct {
			Error string `json:"error"`
		}
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		}
	}
}

// bootstrap makes the root file system as a tar. The tar appears under its name only when it is complete.
func bootstrap(ctx context.Context, name string) error {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return errors.New("mmdebstrap is not installed (apt-get install mmdebstrap)")
	}
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	apt, err := hostApt(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(name), ".base-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	partial := filepath.Join(dir, "base.tar")
	cmd := exec.CommandContext(ctx, "mmdebstrap", arguments(apt, partial)...)
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return os.Rename(partial, name)
}

// arguments are mmdebstrap's: the least that apt needs, without documents and translations, as in the real image.
func arguments(a apt, output string) []string {
	args := []string{"--quiet", "--variant=minbase"}
	for _, path := range []string{"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*"} {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	args = append(args, "--dpkgopt=path-include=/usr/share/doc/*/copyright")
	for _, option := range a.options {
		args = append(args, "--aptopt="+option)
	}
	if a.https() {
		args = append(args, "--include=ca-certificates")
	}
	if _, err := os.Stat(keyring); err == nil {
		args = append(args, "--keyring="+keyring)
	}
	return append(append(args, suite, output), a.sources...)
}

// keyring verifies Debian's packages on any host, Debian or not.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
