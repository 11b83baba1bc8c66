// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const gitVariable = "COMPOSE_EXPERIMENTAL_GIT_REMOTE"

// gitTimeout bounds one run of git: a server that sends nothing for so long hangs.
const gitTimeout = 10 * time.Minute

// gitAddress is a place in a git repository: REPOSITORY#REF:PATH.
type gitAddress struct {
	repository string
	ref        string // a branch, tag or commit; empty is the default branch
	path       string // of a file or folder in the repository
}

// IsGit reports whether an address is that of a git repository.
func IsGit(address string) bool {
	_, err := parseGit(address)
	return err == nil
}

// Commit asks a repository which commit its address stands for now.
func (f *Fetcher) Commit(ctx context.Context, address string) (string, error) {
	a, err := parseGit(address)
	if err != nil {
		return "", err
	}
	_, commit, err := f.resolve(ctx, a)
	return commit, err
}

var scpForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9._~-]+@[^:/\s]+:[^\s]+$`) })

// parseGit reads an address: https://host/repository.git, ssh://, git://, git@host:repository.git, github.com/owner/repository, each with #ref:path
// behind it if need be. An http address is a repository's only if it ends in .git.
func parseGit(address string) (gitAddress, error) {
	repository, fragment, _ := strings.Cut(address, "#")
	ref, path, _ := strings.Cut(fragment, ":")
	a := gitAddress{repository: repository, ref: ref, path: path}
	if strings.HasPrefix(a.ref, "-") || strings.ContainsAny(a.ref, " \t\n\\^~?*[") {
		return a, fmt.Errorf("%q is no branch, tag or commit", a.ref)
	}
	switch {
	case strings.HasPrefix(repository, "github.com/"):
		a.repository = "https://" + repository
		return a, nil
	case scpForm().MatchString(repository) && !strings.HasPrefix(repository, "-"):
		return a, nil
	}
	u, err := url.Parse(repository)
	if err != nil || u.Host == "" || u.RawQuery != "" || strings.HasPrefix(u.Host, "-") {
		return a, errors.New("not the address of a repository")
	}
	switch u.Scheme {
	case "git", "ssh":
		return a, nil
	case "http", "https":
		if strings.HasSuffix(u.Path, ".git") {
			return a, nil
		}
	}
	return a, errors.New("not the address of a repository")
}

// git fetches a repository at one commit and returns the Compose file in it.
func (f *Fetcher) git(ctx context.Context, address string) (string, error) {
	if err := f.allowed(gitVariable); err != nil {
		return "", err
	}
	a, err := parseGit(address)
	if err != nil {
		return "", err
	}
	ref, commit, err := f.resolve(ctx, a)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(a.repository))
	dir, err := f.keep(filepath.Join("git", hex.EncodeToString(sum[:8]), commit), func(dir string) error {
		return f.checkout(ctx, dir, a.repository, ref, commit)
	})
	if err != nil {
		return "", err
	}
	return composeFile(dir, a.path)
}

var fullCommit = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`) })

// resolve asks the repository which commit a branch or tag is now. A whole commit needs no asking.
func (f *Fetcher) resolve(ctx context.Context, a gitAddress) (ref, commit string, err error) {
	if fullCommit().MatchString(a.ref) {
		return a.ref, a.ref, nil
	}
	if f.o.Offline {
		return "", "", errors.New("which commit it is cannot be asked now: name a whole commit")
	}
	wanted := []string{"HEAD"}
	if a.ref != "" {
		// The tag itself comes after the commit that it leads to.
		wanted = []string{"refs/heads/" + a.ref, "refs/tags/" + a.ref + "^{}", "refs/tags/" + a.ref, a.ref}
	}
	out, err := f.run(ctx, "", append([]string{"ls-remote", "--quiet", "--", a.repository}, wanted...)...)
	if err != nil {
		return "", "", err
	}
	best := len(wanted)
	for line := range strings.Lines(string(out)) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if i := slices.Index(wanted, name); i >= 0 && i < best && fullCommit().MatchString(sha) {
			best, ref, commit = i, strings.TrimSuffix(name, "^{}"), sha
		}
	}
	if commit == "" {
		return "", "", &hinted{fmt.Errorf("the repository has no branch or tag %q", a.ref), "see which there are: git ls-remote " + a.repository}
	}
	return ref, commit, nil
}

// checkout gets one commit into an empty folder, without the history. Servers that do not give out single commits are asked for the branch or tag.
func (f *Fetcher) checkout(ctx context.Context, dir, repository, ref, commit string) error {
	if _, err := f.run(ctx, dir, "init", "--quiet", "--template="); err != nil {
		return err
	}
	fetch := func(what string) error {
		_, err := f.run(ctx, dir, "fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", repository, what)
		return err
	}
	if err := fetch(commit); err != nil {
		if ref == commit {
			return err
		}
		if err := fetch(ref); err != nil {
			return err
		}
	}
	if _, err := f.run(ctx, dir, "checkout", "--quiet", "--detach", commit, "--"); err != nil {
		return err
	}
	return nil
}

// run runs git with all off that a repository could use to run something here: hooks, protocols that are commands, prompts. The user's own settings
// stay, since credentials and proxies are in them.
func (f *Fetcher) run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	safe := []string{"-c", "core.hooksPath=" + filepath.Join(f.o.Cache, "no-hooks"), "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
		"-c", "submodule.recurse=false", "-c", "advice.detachedHead=false", "-c", "core.longpaths=true"}
	c := exec.CommandContext(ctx, "git", append(safe, args...)...)
	c.Dir = dir
	c.Env = f.gitEnv()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	isolate(c)
	c.WaitDelay = 5 * time.Second
	err := c.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, &hinted{errors.New("git is not installed"), "install git"}
	case ctx.Err() != nil:
		return nil, fmt.Errorf("git %s: %w", args[0], context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("git %s: %s", args[0], lastLines(errOut.String(), err))
	}
	return out.Bytes(), nil
}

// gitEnv lets git ask nothing, and speak the usual protocols only.
func (f *Fetcher) gitEnv() []string {
	env := slices.DeleteFunc(slices.Clone(f.o.Environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		// These would make another repository of the one in the cache.
		return slices.Contains([]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}, name)
	})
	add := func(name, value string, unless ...string) {
		for _, n := range append(unless, name) {
			if getenv(env, n) != "" {
				return
			}
		}
		env = append(env, name+"="+value)
	}
	add("GIT_TERMINAL_PROMPT", "0")
	add("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ControlMaster=no", "GIT_SSH")
	add("GIT_ALLOW_PROTOCOL", "https:http:git:ssh")
	return append(env, "LC_ALL=C")
}

// lastLines is what git said, on one line.
func lastLines(text string, err error) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if lines[0] == "" {
		return err.Error()
	}
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.Join(lines, "; ")
}
