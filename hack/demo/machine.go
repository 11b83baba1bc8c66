// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/internal/baseimage"
)

// overlay is what the demo in a machine adds to the example: nginx gets its settings and a folder with pages by bind mounts, so that what is
// edited on this host shows in the browser at once; and a program watches one of the files, and serves it as it was when the system last told of a change.
//
// An emulated machine on a busy host takes its time: what is patient here says nothing about a real one.
const overlay = `x-patience: &patience {start_period: 15m, start_interval: 2s, interval: 10s, timeout: 1m}
services:
  proxy:
    volumes:
      - ./site.conf:/etc/nginx/sites-enabled/default:ro
      - ./site:/srv/site:ro
    configs: !reset []
    healthcheck: *patience
  web: {healthcheck: *patience}
  db: {healthcheck: *patience}
  cache: {healthcheck: *patience}
  notice:
    image: ${COMPOSE_PROJECT_NAME}-web
    depends_on: [web]
    command: /demo -notice /site/notice.txt
    ports: ["${NOTICE_PORT}:8081"]
    volumes:
      - ../travel/demo:/demo:ro
      - ./site:/site:ro
    restart: unless-stopped
    stop_grace_period: 2s
`

// location is what site.conf has beside the example's own settings.
const location = `server {
	listen 80 default_server;
	location /site/ { root /srv; sendfile off; add_header Cache-Control no-store; }
`

// machineDemo shows the example in a virtual machine of its own, in a folder of its own.
type machineDemo struct {
	demo
	home    string // everything that is made lies below
	machine string
	image   string // the folder with the machine's image
	// noticeHostPort is where the service notice is had on this host.
	noticeHostPort string
}

// runMachine is the demo with -vm.
func runMachine(ctx context.Context) (err error) {
	m, err := newMachineDemo()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.takeAway()) }()
	m.image, err = machineImage(ctx, m.dev)
	if err != nil {
		return err
	}
	images, err := m.builtHere(ctx)
	if err != nil {
		return err
	}
	if err := m.carryDemo(ctx); err != nil {
		return err
	}
	began := time.Now()
	heading("dev machine create: a virtual machine with an engine")
	if err := m.run(ctx, "machine", "create", "--image", m.image, "--cpus", "2", "--memory", "2g", "--disk", "16g", "--share", m.project, "--share", m.travel(),
		"--docker-context", "no", "--use", m.machine); err != nil {
		return err
	}
	fmt.Printf("  it took %s\n", time.Since(began).Round(time.Second))
	if err := m.fill(ctx, images); err != nil {
		return err
	}
	heading("dev up -d --wait, in a copy of examples/guestbook that the machine shares")
	if err := m.run(ctx, "up", "-d", "--wait"); err != nil {
		return err
	}
	return m.prove(ctx)
}

func newMachineDemo() (*machineDemo, error) {
	base, err := newDemo(true)
	if err != nil {
		return nil, err
	}
	base.name = "guestbook-vm"
	noticePort, err := freePort()
	if err != nil {
		return nil, err
	}
	// Short, as sockets lie below it; and not in a folder that the machine has for itself.
	home, err := os.MkdirTemp("", "dev-vm-")
	if err != nil {
		return nil, err
	}
	if home, err = filepath.EvalSymlinks(home); err != nil {
		return nil, err
	}
	m := &machineDemo{demo: *base, home: home, machine: "demo", noticeHostPort: noticePort}
	example := m.project
	m.project = filepath.Join(home, "guestbook")
	m.env = []string{"DEV_HOME=" + filepath.Join(home, "h"), "DOCKER_CONFIG=" + filepath.Join(home, "docker"), "DOCKER_HOST=", "DOCKER_CONTEXT=", "NOTICE_PORT=" + noticePort}
	if err := errors.Join(os.Mkdir(m.travel(), 0o755), os.CopyFS(m.project, os.DirFS(example))); err != nil {
		return m, err
	}
	settings, err := os.ReadFile(filepath.Join(example, "proxy", "nginx.conf"))
	if err != nil {
		return m, err
	}
	for name, text := range map[string]string{
		"compose.override.yaml": overlay,
		"site.conf":             strings.Replace(string(settings), "server {\n\tlisten 80 default_server;\n", location, 1),
		"site/hello.txt":        "",
		"site/notice.txt":       "",
	} {
		if err := write(filepath.Join(m.project, name), text); err != nil {
			return m, err
		}
	}
	return m, nil
}

func write(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

// machineImage is the folder with a machine image of what is in the tree; it is built once, and again when its sources are newer.
func machineImage(ctx context.Context, dev string) (string, error) {
	dir, err := filepath.Abs(filepath.Join("dist", "machine-image-"+runtime.GOARCH))
	if err != nil {
		return "", err
	}
	bundle := filepath.Join("dist", "engine-linux-"+runtime.GOARCH+".tar.zst")
	if built, err := os.Stat(filepath.Join(dir, "manifest.json")); err == nil {
		newer, err := newerThan(built.ModTime(), "vmimage", bundle)
		if err != nil || !newer {
			return dir, err
		}
	}
	heading("dev machine image build: the image that machines boot (once)")
	cmd := exec.CommandContext(ctx, dev, "machine", "image", "build", "--no-disk", "-o", dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the machine image: %w", err)
	}
	return dir, nil
}

// newerThan reports whether a file below one of the paths is newer than t; tests do not count.
func newerThan(t time.Time, paths ...string) (newer bool, err error) {
	for _, root := range paths {
		err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go") {
				return err
			}
			info, err := d.Info()
			newer = newer || err == nil && info.ModTime().After(t)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return newer, nil
}

// builtHere builds the example's images with the engine that runs natively and returns a file with them, where that is possible: in an emulated
// machine it would take a quarter of an hour. Empty: the machine builds them.
func (m *machineDemo) builtHere(ctx context.Context) (file string, err error) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return "", nil
	}
	native := &demo{dev: m.dev, project: m.project, name: m.name, port: m.port, env: []string{"NOTICE_PORT=" + m.noticeHostPort}}
	choice, err := native.engine(ctx)
	if err != nil {
		return "", err
	}
	if err := native.prepare(ctx, choice); err != nil {
		return "", err
	}
	if native.started {
		defer func() { err = errors.Join(err, native.run(context.WithoutCancel(ctx), "engine", "stop")) }()
	}
	heading("dev build, with the engine of this host: the images then travel into the machine")
	if err := native.run(ctx, "build"); err != nil {
		return "", err
	}
	file = filepath.Join(m.travel(), "images.tar")
	return file, saveImages(ctx, choice.Host, file, m.images())
}

// travel is the shared folder through which images get into the machine. The engine's socket is no way for hundreds of megabytes where the machine
// is emulated: what protects the link is emulated, too.
func (m *machineDemo) travel() string { return filepath.Join(m.home, "travel") }

// images are the example's.
func (m *machineDemo) images() []string {
	var names []string
	for _, service := range []string{"proxy", "web", "db", "cache"} {
		names = append(names, m.name+"-"+service+":latest")
	}
	return names
}

func saveImages(ctx context.Context, host, file string, names []string) (err error) {
	c, err := client.New(client.WithHost(host))
	if err != nil {
		return err
	}
	defer c.Close()
	saved, err := c.ImageSave(ctx, names)
	if err != nil {
		return err
	}
	defer saved.Close()
	return inflate(file, saved)
}

// fill gives the machine's engine the example's images, or the base image to build them from.
func (m *machineDemo) fill(ctx context.Context, images string) error {
	if images == "" {
		c, err := client.New(client.WithHost("unix://" + filepath.Join(m.home, "h", "machines", m.machine, "docker.sock")))
		if err != nil {
			return err
		}
		defer c.Close()
		return baseimage.Ensure(ctx, c, "dist", os.Stdout)
	}
	// this program, run in the machine, hands them to the engine there
	began := time.Now()
	if err := m.run(ctx, "machine", "shell", m.machine, filepath.Join(m.travel(), "demo"), "-load", images); err != nil {
		return fmt.Errorf("load the images into the machine: %w", err)
	}
	fmt.Printf("  the images are in the machine after %s\n", time.Since(began).Round(time.Second))
	return nil
}

// carryDemo builds this program for the machine.
func (m *machineDemo) carryDemo(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(m.travel(), "demo"), "./hack/demo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the program that runs in the machine: %w", err)
	}
	return nil
}

// load gives the engine at the usual socket the images of a file.
func load(ctx context.Context, file string) error {
	c, err := client.New(client.WithHost("unix:///run/docker.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	loaded, err := c.ImageLoad(ctx, f)
	if err != nil {
		return err
	}
	defer loaded.Close()
	_, err = io.Copy(io.Discard, loaded)
	return err
}

// editPage writes a page on this host and reads it through the container.
func (m *machineDemo) editPage(ctx context.Context, text string) error {
	heading("A file in the bind mount: " + text)
	if err := write(filepath.Join(m.project, "site", "hello.txt"), text+"\n"); err != nil {
		return err
	}
	page, err := read(ctx, "http://localhost:"+m.port+"/site/hello.txt")
	if err != nil {
		return err
	}
	fmt.Print("  " + page)
	if page != text+"\n" {
		return fmt.Errorf("the page is %q, and %q was written on this host", page, text)
	}
	return nil
}

// takeAway removes the machine and all that was made, and looks that nothing of it runs on.
func (m *machineDemo) takeAway() error {
	if m.home == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	heading("dev machine rm")
	err := m.run(ctx, "machine", "rm", "--force", m.machine)
	if left := processesWith(m.home); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("processes of the machine are left: %s", strings.Join(left, "; ")))
	}
	return errors.Join(err, os.RemoveAll(m.home))
}

// processesWith are the command lines of processes that name a folder, where the system has a /proc.
func processesWith(dir string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if line := strings.ReplaceAll(string(data), "\x00", " "); err == nil && strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return found
}

// signedEntry is the entry that the demo made in a page.
func signedEntry(page string) string {
	i := strings.Index(page, greeting)
	if i < 0 {
		return ""
	}
	entry, _, _ := strings.Cut(page[i:], "<")
	return strings.TrimSpace(entry)
}

// read gets a page of this host.
func read(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("read %s: %s", address, response.Status)
	}
	return string(body), err
}

// refused makes sure that nobody listens at an address any more.
func refused(ctx context.Context, address string) error {
	if _, err := read(ctx, address); err == nil {
		return fmt.Errorf("%s answers though the machine is stopped", address)
	}
	return nil
}
