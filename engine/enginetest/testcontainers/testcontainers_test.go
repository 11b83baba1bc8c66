// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package testcontainers is a program as users write it with testcontainers-go: the engine's tests run it on the engine that dev carries. It is a module of
// its own, so that dev depends on nothing of it.
package testcontainers

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

// TestContainer starts a server, waits for its log and its answer through a published port, copies a file in, runs a command and ends it.
func TestContainer(t *testing.T) {
	ctx := t.Context()
	net, err := network.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	testcontainers.CleanupNetwork(t, net)
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		ContainerRequest: testcontainers.ContainerRequest{
			Image:        "busybox:test",
			Cmd:          []string{"sh", "-c", "echo serving; exec httpd -f -p 8080 -h /www"},
			ExposedPorts: []string{"8080/tcp"},
			Networks:     []string{net.Name},
			Files:        []testcontainers.ContainerFile{{Reader: strings.NewReader("hello\n"), ContainerFilePath: "/www/index.html", FileMode: 0o644}},
			WaitingFor:   wait.ForAll(wait.ForLog("serving"), wait.ForHTTP("/").WithPort("8080/tcp")).WithDeadline(2 * time.Minute),
		},
		Started: true,
	})
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatal(err)
	}
	code, out, err := c.Exec(ctx, []string{"cat", "/www/index.html"})
	if err != nil || code != 0 {
		t.Fatalf("exec: %d, %v", code, err)
	}
	if text, err := io.ReadAll(out); err != nil || !strings.Contains(string(text), "hello") {
		t.Fatalf("exec wrote %q, %v", text, err)
	}
	if port, err := c.MappedPort(ctx, "8080/tcp"); err != nil || port.Int() == 0 {
		t.Fatalf("port %v, %v", port, err)
	}
}
