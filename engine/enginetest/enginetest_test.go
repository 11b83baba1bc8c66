// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package enginetest_test

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.Isolate()
	os.Exit(m.Run())
}

// TestPublishedPort shows what the package promises: an engine, an image, and
// a published port on the test's own loopback.
func TestPublishedPort(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	ctx := t.Context()
	enginetest.BusyboxImage(t, c, "busybox:test")
	port := network.MustParsePort("80/tcp")
	created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{
			Image: "busybox:test", Cmd: []string{"sh", "-c", "echo hello >/root/index.html; exec httpd -f -p 80 -h /root"},
			ExposedPorts: network.PortSet{port: {}},
		},
		HostConfig: &container.HostConfig{PortBindings: network.PortMap{port: {{HostIP: netip.MustParseAddr("127.0.0.1")}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.ContainerInspect(ctx, created.ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	binding := got.Container.NetworkSettings.Ports[port][0]
	resp, err := http.Get("http://127.0.0.1:" + binding.HostPort + "/")
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err = http.Get("http://127.0.0.1:" + binding.HostPort + "/") // the port is there before the program behind it
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello\n" {
		t.Fatalf("the container answered %q, %v", body, err)
	}
}
