// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/pflag"
)

func parseUp(t *testing.T, args ...string) (upOptions, error) {
	t.Helper()
	var o upOptions
	f := pflag.NewFlagSet("up", pflag.ContinueOnError)
	o.register(f)
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.menuSet = f.Changed("menu")
	return o, o.check()
}

func TestUpFlagsThatExcludeEachOther(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-d --abort-on-container-exit", "--detach cannot be combined"},
		{"--wait --exit-code-from web", "--wait cannot be combined"},
		{"-d --attach web", "--detach cannot be combined"},
		{"--abort-on-container-exit --abort-on-container-failure", "exclude each other"},
		{"--attach web --attach-dependencies", "exclude each other"},
		{"--build --no-build", "--build and --no-build"},
		{"--no-recreate --force-recreate", "--force-recreate and --no-recreate"},
		{"--no-recreate -V", "--renew-anon-volumes"},
		{"--no-recreate --always-recreate-deps", "--always-recreate-deps"},
		{"--pull sometimes", `"sometimes"`},
		{"--wait-timeout -1", "negative"},
		{"--watch -d", "--watch cannot be combined with --detach"},
		{"--watch --exit-code-from web", "--watch cannot be combined with --abort-on-container-exit"},
		{"--menu --wait", "--wait"},
		{"-t soon", "whole number"},
	} {
		_, err := parseUp(t, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("up %s: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestUpFlagsImply(t *testing.T) {
	if o, err := parseUp(t, "--wait"); err != nil || !o.detach {
		t.Errorf("--wait: detach %t, %v", o.detach, err)
	}
	if o, err := parseUp(t, "--exit-code-from", "web"); err != nil || !o.abortOnExit {
		t.Errorf("--exit-code-from: abort %t, %v", o.abortOnExit, err)
	}
	if o, err := parseUp(t, "--exit-code-from", "web", "--abort-on-container-failure"); err != nil || o.abortOnExit {
		t.Errorf("--exit-code-from with --abort-on-container-failure: abort on exit %t, %v", o.abortOnExit, err)
	}
	if o, err := parseUp(t, "--y"); err != nil || !o.yes {
		t.Errorf("--y: yes %t, %v", o.yes, err)
	}
}

func TestPlanOptions(t *testing.T) {
	p := &types.Project{Services: types.Services{"web": {Name: "web"}}, Environment: types.Mapping{"COMPOSE_REMOVE_ORPHANS": "yes"}}
	o, err := parseUp(t, "--scale", "web=3", "-t", "0", "--pull", "always", "--no-deps")
	if err != nil {
		t.Fatal(err)
	}
	po, err := o.plan(&app{}, p, []string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	if po.Scale["web"] != 3 || po.Timeout == nil || *po.Timeout != 0 || po.Pull != "always" || !po.NoDeps || !po.RemoveOrphans {
		t.Errorf("%+v", po)
	}
	o, _ = parseUp(t, "-t", "7")
	if po, err = o.plan(&app{}, p, nil); err != nil || *po.Timeout != 7*time.Second || po.Pull != "" || po.Services != nil {
		t.Errorf("%+v, %v", po, err)
	}
	if _, err := o.plan(&app{env: []string{"COMPOSE_IGNORE_ORPHANS=1"}}, p, nil); err == nil {
		t.Error("removing and ignoring orphans at once was accepted")
	}
}

func TestParseScale(t *testing.T) {
	p := &types.Project{Services: types.Services{"web": {Name: "web"}}}
	for _, bad := range []string{"web", "web=", "=3", "web=-1", "web=x", "wbe=1"} {
		if _, err := parseScale([]string{bad}, p); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if s, err := parseScale([]string{"web=1", "web=0"}, p); err != nil || s["web"] != 0 {
		t.Errorf("%v, %v: the last one counts", s, err)
	}
}
