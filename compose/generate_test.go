// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// TestGenerate describes a container that nobody's Compose file made.
func TestGenerate(t *testing.T) {
	web := container.InspectResponse{
		ID: "abcdef0123456789", Name: "/shop",
		Config: &container.Config{
			Image: "nginx:1", Hostname: "abcdef012345", Env: []string{"PATH=/bin", "MODE=$x"}, Cmd: []string{"serve"}, Entrypoint: []string{"/run"},
			Labels: map[string]string{"of.image": "1", "own": "2", LabelProject: "old"},
		},
		HostConfig: &container.HostConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways}, NetworkMode: "front",
			PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {
				{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: "8080"}, {HostIP: netip.IPv4Unspecified(), HostPort: "80"},
			}},
			Resources: container.Resources{NanoCPUs: 5e8},
		},
		Mounts: []container.MountPoint{
			{Type: mount.TypeBind, Source: "/home/me/shop/conf", Destination: "/conf"},
			{Type: mount.TypeBind, Source: "/etc/hosts", Destination: "/hosts", RW: true},
			{Type: mount.TypeVolume, Name: "0123", Destination: "/cache", RW: true},
			{Type: mount.TypeVolume, Name: "data", Destination: "/data", RW: true},
		},
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{
			"front": {Aliases: []string{"abcdef012345", "www"}},
		}},
	}
	p := Generate([]Found{{Container: web, Image: &container.Config{
		Env: []string{"PATH=/bin"}, Entrypoint: []string{"/run"}, Labels: map[string]string{"of.image": "1"},
	}}}, GenerateOptions{
		Project: "shop", Dir: "/home/me/shop", Volumes: map[string]map[string]string{"0123": {labelAnonymous: ""}, "data": {LabelProject: "shop", LabelVolume: "d"}},
	})
	got, err := p.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	const want = `name: shop
services:
  shop:
    restart: always
    cpus: 0.5
    command:
      - serve
    environment:
      MODE: $x
    image: nginx:1
    labels:
      own: "2"
    networks:
      front:
        aliases:
          - www
    volumes:
      - type: volume
        target: /cache
      - type: bind
        source: ./conf
        target: /conf
        read_only: true
      - type: volume
        source: d
        target: /data
      - type: bind
        source: /etc/hosts
        target: /hosts
    ports:
      - target: 80
        published: "80"
        protocol: tcp
      - host_ip: 127.0.0.1
        target: 80
        published: "8080"
        protocol: tcp
networks:
  front:
    name: front
    external: true
volumes:
  d: {}
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
