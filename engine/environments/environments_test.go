// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package environments

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed71221737/dev/compose"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func TestPortRange(t *testing.T) {
	r, err := ParsePortRange("31000-31001")
	if err != nil {
		t.Fatal(err)
	}
	s := &State{}
	host := Host{Free: func(string, uint16) bool { return true }, Ports: r}
	var got []uint16
	for _, name := range []string{"one", "two", "three"} {
		rec, err := s.Add("shop", name, "/src", now)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Allocate(rec, compose.Needs{Ports: []compose.PortNeed{{Key: "web/80/tcp", Protocol: "tcp", Count: 1}}}, host)
		if full := name == "three"; full != (err != nil) {
			t.Fatalf("%s: %v", name, err)
		}
		got = append(got, rec.Ports["web/80/tcp"])
	}
	if got[0] != 31000 || got[1] != 31001 {
		t.Errorf("got %d", got)
	}
	for _, bad := range []string{"", "5", "0-5", "6-5", "1-70000", "a-b", "1-2-3", "-"} {
		if r, err := ParsePortRange(bad); err == nil {
			t.Errorf("ParsePortRange(%q) = %v", bad, r)
		}
	}
}

func TestAllocate(t *testing.T) {
	s := &State{}
	host := Host{
		Free:     func(_ string, port uint16) bool { return port != 20001 && port != 20004 },
		Networks: []netip.Prefix{netip.MustParsePrefix("10.128.0.0/24"), netip.MustParsePrefix("10.128.2.0/23")},
	}
	needs := compose.Needs{
		Ports: []compose.PortNeed{{Key: "web/80/tcp", Protocol: "tcp", Count: 1}, {Key: "db/1/tcp", Protocol: "tcp", Count: 3}, {Key: "dns/53/udp", Protocol: "udp", Count: 1}},
		Subnets: []compose.SubnetNeed{
			{Key: "a", Like: netip.MustParsePrefix("172.30.0.0/24")}, {Key: "b", Like: netip.MustParsePrefix("172.31.0.0/16")},
			{Key: "c", Like: netip.MustParsePrefix("fd00::/64")}, {Key: "d", Like: netip.MustParsePrefix("172.30.1.0/24")},
		},
	}
	var got []string
	for _, name := range []string{"one", "two"} {
		r, err := s.Add("shop", name, "/src", now)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Allocate(r, needs, host); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %v %v", r.Project, r.Ports, r.Subnets))
	}
	want := []string{
		"shop-one map[db/1/tcp:20005 dns/53/udp:20002 web/80/tcp:20000] map[a:10.128.1.0/24 b:10.129.0.0/16 c:fd6f:7de3:51c9::/64 d:10.128.4.0/24]",
		"shop-two map[db/1/tcp:20008 dns/53/udp:20011 web/80/tcp:20003] map[a:10.128.5.0/24 b:10.130.0.0/16 c:fd6f:7de3:51c9:1::/64 d:10.128.6.0/24]",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}

	// What is given stays, whatever the host says now; a longer range is found anew.
	one := s.Find("shop", "one")
	needs.Ports[1].Count = 4
	taken := Host{Free: func(_ string, port uint16) bool { return port > 25000 }}
	if err := s.Allocate(one, needs, taken); err != nil || one.Ports["web/80/tcp"] != 20000 || one.Ports["db/1/tcp"] != 25001 {
		t.Errorf("got %v, %v", one.Ports, err)
	}
	none := Host{Free: func(string, uint16) bool { return false }}
	three, _ := s.Add("shop", "three", "/src", now)
	if err := s.Allocate(three, needs, none); err == nil || !strings.Contains(err.Error(), "web/80/tcp") {
		t.Errorf("no port is free: got %v", err)
	}
	huge := compose.Needs{Subnets: []compose.SubnetNeed{{Key: "x", Like: netip.MustParsePrefix("0.0.0.0/0")}}}
	if err := s.Allocate(three, huge, host); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a huge subnet: got %v", err)
	}
}

func TestThisHost(t *testing.T) {
	h := ThisHost()
	if !h.Free("tcp", 0) || !h.Free("udp", 0) || !h.Free("sctp", 1) {
		t.Error("a port that the system chooses is not free")
	}
}

func TestNames(t *testing.T) {
	for _, c := range [][3]string{{"shop", "main", "shop"}, {"shop", "fix", "shop-fix"}, {"shop", "shop-fix", "shop-fix"}, {"shop", "shopping", "shop-shopping"}} {
		if got := ProjectName(c[0], c[1]); got != c[2] {
			t.Errorf("%s of %s: got %s, want %s", c[1], c[0], got, c[2])
		}
	}
	if got := Normalize("Feature/Login.2"); got != "feature-login-2" {
		t.Errorf("got %q", got)
	}
	for name, good := range map[string]bool{"fix": true, "": false, "Fix": false, "a/b": false, "-a": false, "a_1": true} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: got %v", name, err)
		}
	}
	s := &State{}
	if _, err := s.Add("shop", "a-b", "/", now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add("shop-a", "b", "/", now); err == nil {
		t.Error("two environments got the same project name")
	}
}

func TestUse(t *testing.T) {
	s := &State{Use: map[string]string{"/src": "a", "/src/shop/deep": "b"}}
	for dir, want := range map[string]string{"/src/shop": "a", "/src": "a", "/src/shop/deep/er": "b", "/": "", "/srcs": ""} {
		if got := s.InUse(dir); got != want {
			t.Errorf("%s: got %q, want %q", dir, got, want)
		}
	}
	s.Forget("any", "a")
	if got := s.InUse("/src"); got != "" {
		t.Errorf("a forgotten environment is in use: %q", got)
	}
}

// TestStoreConcurrently: of many that add at once none is lost, and no port is given twice.
func TestStoreConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", FileName)
	host := Host{Free: func(string, uint16) bool { return true }}
	var wg sync.WaitGroup
	const many = 20
	for i := range many {
		wg.Go(func() {
			err := Store{path}.Update(t.Context(), func(s *State) error {
				r, err := s.Add("shop", fmt.Sprintf("e%d", i), "/src", now)
				if err != nil {
					return err
				}
				return s.Allocate(r, compose.Needs{Ports: []compose.PortNeed{{Key: "web/80/tcp", Protocol: "tcp", Count: 1}}}, host)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := Store{path}.Read()
	if err != nil || len(s.Environments) != many {
		t.Fatalf("got %d environments, %v", len(s.Environments), err)
	}
	ports := map[uint16]bool{}
	for _, r := range s.Environments {
		ports[r.Ports["web/80/tcp"]] = true
	}
	if len(ports) != many {
		t.Errorf("%d ports for %d environments", len(ports), many)
	}
}

func TestStoreRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	for text, want := range map[string]string{`{"schema": 99}`: "schema 99 is not supported", `{"sch`: "read environments"} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		err := Store{path}.Update(t.Context(), func(*State) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", text, err)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("the file that cannot be read was changed to %s", after)
		}
	}
	boom := fmt.Errorf("boom")
	fresh := Store{filepath.Join(t.TempDir(), FileName)}
	if err := fresh.Update(t.Context(), func(s *State) error { s.Use = map[string]string{"/": "x"}; return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(fresh.Path); err == nil {
		t.Error("a failed change was written")
	}
}

func TestFindWorktree(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	git := func(dir string, args ...string) {
		t.Helper()
		c := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com", "-C", dir}, args...)...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	repo, linked := filepath.Join(top, "shop"), filepath.Join(top, "wt", "Fix.1")
	git(top, "init", "-q", repo)
	git(repo, "commit", "-q", "--allow-empty", "-m", "first")
	git(repo, "worktree", "add", "-q", linked)
	git(top, "clone", "-q", "--bare", repo, filepath.Join(top, "bare.git"))
	git(filepath.Join(top, "bare.git"), "worktree", "add", "-q", filepath.Join(top, "of-bare"))
	deep := filepath.Join(linked, "deep", "er")
	if err := os.MkdirAll(deep, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]Worktree{
		repo:                          {Root: repo, Main: repo},
		linked:                        {Root: linked, Name: "Fix.1", Main: repo},
		deep:                          {Root: linked, Name: "Fix.1", Main: repo},
		filepath.Join(top, "of-bare"): {Root: filepath.Join(top, "of-bare"), Name: "of-bare", Main: filepath.Join(top, "bare")},
	} {
		got, ok, err := FindWorktree(dir)
		if err != nil || !ok || got != want {
			t.Errorf("%s: got %+v, %t, %v", dir, got, ok, err)
		}
	}
	if w, ok, err := FindWorktree(top); ok || err != nil {
		t.Errorf("outside of a repository: got %+v, %v", w, err)
	}
}
