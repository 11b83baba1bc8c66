// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // the registry's storage
	"github.com/sirupsen/logrus"
)

func TestParseGit(t *testing.T) {
	for address, want := range map[string]gitAddress{
		"https://example.com/a/b.git":                 {repository: "https://example.com/a/b.git"},
		"https://example.com/b.git#main":              {"https://example.com/b.git", "main", ""},
		"https://example.com/b.git#v1:sub/dir":        {"https://example.com/b.git", "v1", "sub/dir"},
		"https://example.com/b.git#:compose.yaml":     {"https://example.com/b.git", "", "compose.yaml"},
		"git@example.com:a/b.git#main":                {"git@example.com:a/b.git", "main", ""},
		"ssh://git@example.com:22/a/b#x":              {"ssh://git@example.com:22/a/b", "x", ""},
		"git://example.com/b":                         {repository: "git://example.com/b"},
		"github.com/owner/repository#feature/x:file":  {"https://github.com/owner/repository", "feature/x", "file"},
		"http://user:secret@example.com:8080/x/y.git": {repository: "http://user:secret@example.com:8080/x/y.git"},
	} {
		if got, err := parseGit(address); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", address, got, err, want)
		}
	}
	for _, address := range []string{
		"", "compose.yaml", "./x.git", "/x.git", "https://example.com/compose.yaml", "https:///b.git", "oci://a/b", "ext::sh -c id", "file:///x.git",
		"https://example.com/b.git#--upload-pack=id", "https://example.com/b.git#a b", "https://-oProxyCommand=id/x.git", "-x@h:p", "a@b:c d",
		"https://example.com/b.git?ref=x",
	} {
		if got, err := parseGit(address); err == nil {
			t.Errorf("%q is taken for %+v", address, got)
		}
	}
}

func FuzzParseGit(f *testing.F) {
	f.Add("https://example.com/b.git#v1:sub")
	f.Fuzz(func(t *testing.T, address string) {
		a, err := parseGit(address)
		if err == nil && (a.repository == "" || strings.HasPrefix(a.repository, "-") || strings.HasPrefix(a.ref, "-")) {
			t.Errorf("%q: %+v", address, a)
		}
	})
}

// gitServer serves bare repositories in a folder.
func gitServer(t *testing.T) (root, url string) {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	if runtime.GOOS == "windows" {
		t.Skip("git's server needs CGI")
	}
	root = t.TempDir()
	s := httptest.NewServer(&cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Dir: root,
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + root},
	})
	t.Cleanup(s.Close)
	return root, s.URL
}

// commit makes a repository, or adds to it, and returns the commit.
func commit(t *testing.T, root, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(root, name+"-work")
	git := func(args ...string) string {
		t.Helper()
		c := exec.Command("git", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "HOME="+root, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_CONFIG_NOSYSTEM=1")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if _, err := os.Stat(dir); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		git("init", "--quiet", "--initial-branch=main")
		git("init", "--quiet", "--bare", "--initial-branch=main", filepath.Join(root, name+".git"))
	}
	for file, text := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	git("add", "-A")
	git("commit", "--quiet", "-m", "x")
	git("push", "--quiet", filepath.Join(root, name+".git"), "HEAD:main")
	return git("rev-parse", "HEAD")
}

func newTestFetcher(t *testing.T, change func(*Options)) *Fetcher {
	t.Helper()
	o := Options{Cache: filepath.Join(t.TempDir(), "cache"), DockerDir: t.TempDir(), Environ: os.Environ()}
	if change != nil {
		change(&o)
	}
	return New(o)
}

// load fetches an address and returns what the file says.
func load(ctx context.Context, f *Fetcher, address string) (string, error) {
	for _, l := range f.Loaders() {
		if l.Accept(address) {
			file, err := l.Load(ctx, address)
			if err != nil {
				return "", err
			}
			data, err := os.ReadFile(file)
			return string(data), err
		}
	}
	return "", os.ErrInvalid
}

func TestGit(t *testing.T) {
	root, server := gitServer(t)
	outside := filepath.Join(t.TempDir(), "secret.yaml")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := commit(t, root, "repo", map[string]string{
		"compose.yaml": "one", "sub/compose.yml": "sub", "sub/other.yaml": "other", "empty/file": "", "evil.yaml": "-> " + outside,
	})
	url := server + "/repo.git"
	f := newTestFetcher(t, nil)
	for address, want := range map[string]string{url: "one", url + "#main": "one", url + "#" + first: "one", url + "#main:sub": "sub", url + "#:sub/other.yaml": "other"} {
		if got, err := load(t.Context(), f, address); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", address, got, err, want)
		}
	}
	if len(f.Fetched()) != 5 {
		t.Errorf("fetched %q", f.Fetched())
	}
	commit(t, root, "repo", map[string]string{"compose.yaml": "two"})
	if got, err := load(t.Context(), f, url); err != nil || got != "one" {
		t.Errorf("again by the same fetcher: %q, %v", got, err)
	}
	g := newTestFetcher(t, func(o *Options) { o.Cache = f.o.Cache })
	if got, err := load(t.Context(), g, url); err != nil || got != "two" {
		t.Errorf("after a commit: %q, %v", got, err)
	}
	for address, want := range map[string]string{
		url + "#nope":                  `no branch or tag "nope"`,
		url + "#main:../x":             "leads out of it",
		url + "#main:evil.yaml":        "leads out of it",
		url + "#main:missing.yaml":     "there is no",
		url + "#main:empty":            "there is no compose.yaml",
		server + "/nothing.git":        "git ls-remote",
		"git://127.0.0.1:1/refused":    "git ls-remote",
		url + "#" + flipped(first):     "git fetch",
		"https://127.0.0.1:1/none.git": "git ls-remote",
	} {
		if got, err := load(t.Context(), g, address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v; want %q", address, got, err, want)
		}
	}
}

// flipped is a commit that is not there.
func flipped(commit string) string { return strings.Repeat("0", 8) + commit[8:] }

func TestGitOffline(t *testing.T) {
	root, server := gitServer(t)
	first := commit(t, root, "repo", map[string]string{"compose.yaml": "one"})
	address := server + "/repo.git#" + first
	f := newTestFetcher(t, func(o *Options) { o.Offline = true })
	if _, err := load(t.Context(), f, address); err == nil || !strings.Contains(err.Error(), "not in the cache") {
		t.Errorf("nothing in the cache: %v", err)
	}
	if _, err := load(t.Context(), newTestFetcher(t, func(o *Options) { o.Cache = f.o.Cache }), address); err != nil {
		t.Fatal(err)
	}
	if got, err := load(t.Context(), f, address); err != nil || got != "one" {
		t.Errorf("from the cache: %q, %v", got, err)
	}
	if _, err := load(t.Context(), f, server+"/repo.git"); err == nil {
		t.Error("a branch cannot be known offline")
	}
}

func TestSwitchedOff(t *testing.T) {
	f := newTestFetcher(t, func(o *Options) { o.Environ = []string{gitVariable + "=false", ociVariable + "=0"} })
	for _, address := range []string{"https://example.com/x.git", "oci://example.com/x"} {
		if _, err := load(t.Context(), f, address); err == nil || !strings.Contains(err.Error(), "switched off by COMPOSE_EXPERIMENTAL_") {
			t.Errorf("%s: %v", address, err)
		}
	}
	f = newTestFetcher(t, func(o *Options) { o.Environ = []string{gitVariable + "=maybe"} })
	if _, err := load(t.Context(), f, "https://example.com/x.git"); err == nil || !strings.Contains(err.Error(), `"maybe" is neither true nor false`) {
		t.Error(err)
	}
}

// TestGitRunsNothing has a repository try what it can to have something run here.
func TestGitRunsNothing(t *testing.T) {
	root, server := gitServer(t)
	mark := filepath.Join(t.TempDir(), "ran")
	commit(t, root, "repo", map[string]string{
		"compose.yaml": "one", ".gitattributes": "* filter=evil\n", ".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% " + mark + "\n",
		".git-hooks/post-checkout": "#!/bin/sh\ntouch " + mark + "\n",
	})
	templates := t.TempDir()
	if err := os.MkdirAll(filepath.Join(templates, "hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(templates, "hooks", "post-checkout"), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := newTestFetcher(t, func(o *Options) { o.Environ = append(os.Environ(), "GIT_TEMPLATE_DIR="+templates, "GIT_DIR=/nowhere") })
	if got, err := load(t.Context(), f, server+"/repo.git"); err != nil || got != "one" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("something of the repository was run")
	}
}

// startRegistry runs a registry on the loopback; it lets nobody but me in below private/.
func startRegistry(t *testing.T) string {
	t.Helper()
	logrus.SetOutput(io.Discard) // the registry's log
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cfg := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory": nil, "maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	cfg.HTTP.Secret = "test"
	app := handlers.NewApp(ctx, cfg)
	t.Cleanup(func() { _ = app.Shutdown() })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/v2/private/") && (name != "me" || password != "geheim") {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		app.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
