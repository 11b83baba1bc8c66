// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command demo shows dev at work: it brings up examples/guestbook with bin/dev on whatever engine dev chooses, signs the guestbook as a
// browser would, and shows the page and the row in PostgreSQL. Run it from the repository's root, by `make demo`.
//
// With -test it does the same under another project name and port, and takes everything down again. With -vm it does it in a virtual machine of its
// own, with a folder of this host in it, and takes that away again; by `make demo-vm`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/native"
	"github.com/seed71221737/dev/internal/baseimage"
)

// demo is one showing.
type demo struct {
	dev     string // the program
	project string // the example's folder
	name    string // the project's name; empty: what the file says
	port    string
	env     []string // beside this process's
	started bool     // the engine was started here
}

func main() {
	vm := flag.Bool("vm", false, "use a virtual machine of its own, and take it away at the end")
	test := flag.Bool("test", false, "use another project name and port, and take everything down at the end")
	images := flag.String("load", "", "only give the engine the images in this `FILE`: what -vm runs in the machine")
	notice := flag.String("notice", "", "only serve this `FILE`, which is watched: what -vm runs in a container")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch {
	case *images != "":
		err = load(ctx, *images)
	case *notice != "":
		err = serveNotice(ctx, *notice)
	case *vm:
		err = runMachine(ctx)
	default:
		err = run(ctx, *test)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, test bool) (err error) {
	d, err := newDemo(test)
	if err != nil {
		return err
	}
	choice, err := d.engine(ctx)
	if err != nil {
		return err
	}
	if own(choice) && os.Geteuid() != 0 {
		return asRoot(ctx)
	}
	if test {
		defer func() { err = errors.Join(err, d.takeDown()) }()
	}
	if err := d.prepare(ctx, choice); err != nil {
		return err
	}
	heading("dev up -d --wait, in examples/guestbook")
	if err := d.run(ctx, "up", "-d", "--wait"); err != nil {
		return err
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	if !test {
		d.explain(own(choice))
	}
	return nil
}

func newDemo(test bool) (*demo, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	d := &demo{dev: filepath.Join(root, "bin", "dev"), project: filepath.Join(root, "examples", "guestbook"), port: os.Getenv("GUESTBOOK_PORT")}
	if d.port == "" {
		d.port = "8080"
	}
	if test {
		d.name = "guestbook-test"
		d.port, err = freePort()
	}
	return d, err
}

// freePort is one that nobody listens on now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// asRoot runs this program again through sudo: the engine that dev carries needs root.
func asRoot(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Println("The engine needs root: running the demo through sudo.")
	cmd := exec.CommandContext(ctx, "sudo", append([]string{"-E", self}, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// engine asks dev which engine serves its commands.
func (d *demo) engine(ctx context.Context) (endpoint.Candidate, error) {
	cmd := d.command(ctx, "engine", "status", "--format", "json")
	var out strings.Builder
	cmd.Stdout = &out
	// it exits with 3 while dev's own engine does not run; the answer is the same
	if err := cmd.Run(); err != nil && out.Len() == 0 {
		return endpoint.Candidate{}, fmt.Errorf("ask dev for its engine: %w", err)
	}
	var status struct {
		Endpoints []endpoint.Candidate `json:"endpoints"`
		Error     string               `json:"error"`
	}
	if err := json.Unmarshal([]byte(out.String()), &status); err != nil {
		return endpoint.Candidate{}, fmt.Errorf("ask dev for its engine: %w", err)
	}
	for _, c := range status.Endpoints {
		if c.Chosen {
			return c, nil
		}
	}
	return endpoint.Candidate{}, fmt.Errorf("no engine to run the demo on: %s", status.Error)
}

// own says whether it is the engine that dev carries, whoever named it.
func own(choice endpoint.Candidate) bool { return choice.Host == native.DefaultPaths(os.Getenv).Host() }

// prepare starts the engine, if it is ours and does not run, and gives it the examples' base image. (`dev up` would start it too, but the
// base image has to be there before.)
func (d *demo) prepare(ctx context.Context, choice endpoint.Candidate) error {
	heading("The engine: " + choice.Host)
	c, err := client.New(client.FromEnv, client.WithHost(choice.Host))
	if err != nil {
		return err
	}
	defer c.Close()
	if own(choice) {
		_, err := c.Ping(ctx, client.PingOptions{})
		d.started = err != nil
		if err := d.run(ctx, "engine", "start", "--docker-context", "no"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("dist", 0o755); err != nil {
		return err
	}
	return baseimage.Ensure(ctx, c, "dist", os.Stdout)
}

// explain says what there is to look at, and how it ends.
func (d *demo) explain(own bool) {
	sudo := ""
	if os.Getenv("SUDO_UID") != "" {
		sudo = "sudo "
	}
	heading("It keeps running")
	fmt.Printf(`  open     http://localhost:%s
  look     cd examples/guestbook && %[2]s../../bin/dev ps
  stop     cd examples/guestbook && %[2]s../../bin/dev down        (with -v the entries go too)
`, d.port, sudo)
	if own {
		fmt.Printf("  and      %sbin/dev engine stop\n", sudo)
	}
}

// takeDown removes what the test made, whatever became of it.
func (d *demo) takeDown() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	heading("Taking it down")
	err := d.run(ctx, "down", "-v", "-t", "2")
	if d.started {
		err = errors.Join(err, d.run(ctx, "engine", "stop"))
	}
	return err
}

// command is a dev command in the example's folder.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.dev, args...)
	cmd.Dir = d.project
	cmd.Env = append(os.Environ(), "GUESTBOOK_PORT="+d.port)
	cmd.Env = append(cmd.Env, d.env...)
	if d.name != "" {
		cmd.Env = append(cmd.Env, "COMPOSE_PROJECT_NAME="+d.name)
	}
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// run runs a dev command and lets it speak for itself.
func (d *demo) run(ctx context.Context, args ...string) error {
	cmd := d.command(ctx, args...)
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("dev %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func heading(text string) { _, _ = io.WriteString(os.Stdout, "\n==> "+text+"\n") }
