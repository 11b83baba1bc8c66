// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

const testSlug = "0123456789abcdef0123"

func oneOffService() types.ServiceConfig {
	return types.ServiceConfig{
		Restart:       "always",
		ContainerName: "the-app",
		Deploy:        &types.DeployConfig{RestartPolicy: &types.RestartPolicy{Condition: "any"}},
		ContainerSpec: types.ContainerSpec{
			Command: types.ShellCommand{"serve"}, Entrypoint: types.ShellCommand{"/entry"}, User: "app", WorkingDir: "/app",
			Environment:  types.MappingWithEquals{"A": ptr("1"), "B": ptr("2")},
			Labels:       types.Labels{"l": "1"},
			CapAdd:       []string{"NET_ADMIN"},
			CapDrop:      []string{"MKNOD", "KILL"},
			Volumes:      []types.ServiceVolumeConfig{{Type: "volume", Target: "/data"}},
			CustomLabels: types.Labels{LabelOneOff: "False", LabelService: "app"},
		},
		WorkloadSpec: types.WorkloadSpec{Ports: []types.ServicePortConfig{{Target: 80, Published: "8080", Protocol: "tcp"}}},
	}
}

func TestOneOff(t *testing.T) {
	p, s := oneService(oneOffService())
	p.Environment["FROM"] = "env"
	spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: 3, OneOff: &OneOff{
		Slug: testSlug, Command: []string{"test", "-v"}, Env: []string{"B=3", "FROM", "NOWHERE"}, Labels: []string{"m=2"}, User: "root", WorkingDir: "/tmp",
		Volumes: []string{"./x:/x:ro", "data:/data"}, VolumeDir: "/home/me", Publish: []string{"9000:90/udp"}, CapAdd: []string{"KILL"}, CapDrop: []string{"NET_ADMIN"},
		Tty: true, Stdin: true, AutoRemove: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	c, h := spec.Config, spec.Host
	if spec.Name != "p-app-run-0123456789ab" || !slices.Equal(c.Cmd, []string{"test", "-v"}) || !slices.Equal(c.Entrypoint, []string{"/entry"}) || c.User != "root" || c.WorkingDir != "/tmp" {
		t.Errorf("%s: %v %v %s %s", spec.Name, c.Entrypoint, c.Cmd, c.User, c.WorkingDir)
	}
	if !slices.Equal(c.Env, []string{"A=1", "B=3", "FROM=env"}) {
		t.Errorf("environment %q", c.Env)
	}
	if !c.Tty || !c.OpenStdin || !c.AttachStdin || !c.StdinOnce || !h.AutoRemove || h.RestartPolicy.Name != "" {
		t.Errorf("terminal %t, standard input %t %t %t, removed %t, restart %q", c.Tty, c.OpenStdin, c.AttachStdin, c.StdinOnce, h.AutoRemove, h.RestartPolicy.Name)
	}
	if !slices.Equal(h.CapAdd, []string{"KILL"}) || !slices.Equal(h.CapDrop, []string{"MKNOD", "NET_ADMIN"}) {
		t.Errorf("capabilities +%v -%v", h.CapAdd, h.CapDrop)
	}
	if !slices.Equal(h.Binds, []string{"/home/me/x:/x:ro"}) || len(h.Mounts) != 1 || h.Mounts[0].Source != "data" {
		t.Errorf("binds %v, mounts %v", h.Binds, h.Mounts)
	}
	if len(h.PortBindings) != 1 || len(c.ExposedPorts) != 1 {
		t.Errorf("ports %v", h.PortBindings)
	}
	if l := c.Labels; l[LabelOneOff] != "True" || l[LabelSlug] != testSlug || l[LabelContainerNumber] != "" || l["l"] != "1" || l["m"] != "2" {
		t.Errorf("labels %v", l)
	}
	if got := spec.Networks.EndpointsConfig["p_default"].Aliases; !slices.Equal(got, []string{"p-app-run-0123456789ab"}) {
		t.Errorf("aliases %v", got)
	}
	if !reflect.DeepEqual(s.Environment.ToMapping(), types.Mapping{"A": "1", "B": "2"}) || s.Deploy.RestartPolicy == nil || len(s.Volumes) != 1 || s.CustomLabels[LabelOneOff] != "False" || len(s.Labels) != 1 {
		t.Error("the service was changed")
	}
}

func TestOneOffKeepsWhatItDoesNotName(t *testing.T) {
	p, s := oneService(oneOffService())
	spec, _, err := NewContainerSpec(p, s, ContainerInput{OneOff: &OneOff{Slug: testSlug, Name: "mine", ServicePorts: true, UseAliases: true}})
	if err != nil {
		t.Fatal(err)
	}
	if spec.Name != "mine" || !slices.Equal(spec.Config.Cmd, []string{"serve"}) || spec.Config.User != "app" || len(spec.Host.PortBindings) != 1 {
		t.Errorf("%s: %v %s %v", spec.Name, spec.Config.Cmd, spec.Config.User, spec.Host.PortBindings)
	}
	if got := spec.Networks.EndpointsConfig["p_default"].Aliases; !slices.Equal(got, []string{"mine", "app"}) {
		t.Errorf("aliases %v", got)
	}
	if !maps.Equal(s.CustomLabels, types.Labels{LabelOneOff: "False", LabelService: "app"}) {
		t.Error("the service was changed")
	}
}

func TestOneOffEntrypointDropsTheCommand(t *testing.T) {
	p, s := oneService(oneOffService())
	for _, test := range []struct {
		o               OneOff
		entrypoint, cmd []string
	}{
		{OneOff{Entrypoint: []string{"sh"}}, []string{"sh"}, []string{}},
		{OneOff{Entrypoint: []string{"sh"}, Command: []string{"-c"}}, []string{"sh"}, []string{"-c"}},
		{OneOff{Entrypoint: []string{}}, []string{}, []string{}},
		{OneOff{}, []string{"/entry"}, []string{"serve"}},
	} {
		test.o.Slug = testSlug
		got, err := test.o.Apply(p, s)
		if err != nil || !slices.Equal(got.Entrypoint, test.entrypoint) || !slices.Equal(got.Command, test.cmd) || got.Command == nil {
			t.Errorf("%+v: %v %v, %v", test.o, got.Entrypoint, got.Command, err)
		}
	}
}

func TestOneOffRefuses(t *testing.T) {
	p, s := oneService(oneOffService())
	for want, o := range map[string]OneOff{
		`label "x"`:         {Labels: []string{"x"}},
		`publish "http:80"`: {Publish: []string{"http:80"}},
		`together`:          {Publish: []string{"80:80"}, ServicePorts: true},
		`mount ""`:          {Volumes: []string{""}},
	} {
		o.Slug = testSlug
		_, _, err := NewContainerSpec(p, s, ContainerInput{OneOff: &o})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
