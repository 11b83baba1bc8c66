// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package build builds a service's image with the BuildKit inside the engine.
//
// A build's settings become a request, which is data and pure (request.go); solving it opens BuildKit's session through the engine's own socket: the
// files, secrets, SSH agents and registry credentials that the build asks for are served from here, and stay here until it asks. All
// builds of one [engine.Client] share a connection and may run side by side.
//
// The package is apart from package engine because BuildKit's dependencies cost every process that links them. It never prints: progress is handed on as
// BuildKit's own status, for a renderer that understands it. It does not import cmd or machine.
package build

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// builder implements [engine.Builder].
type builder struct {
	backend engine.Backend

	mu   sync.Mutex
	conn *client.Client
}

var _ engine.Builder = (*builder)(nil)

// New makes a builder on an engine; it fits [engine.Options].NewBuilder. It makes no call until the first build.
func New(b engine.Backend) engine.Builder { return &builder{backend: b} }

// Build implements [engine.Builder]. The detail it tells of is a *client.SolveStatus. An error of the build itself is an *[Error].
func (b *builder) Build(ctx context.Context, spec compose.BuildSpec, progress func(detail any)) (compose.Result, error) {
	req, err := newRequest(spec)
	if err != nil {
		return compose.Result{}, err
	}
	conn, err := b.connect(ctx)
	if err != nil {
		return compose.Result{}, fmt.Errorf("connect to the engine's builder: %w", err)
	}
	if req.wantsHostGateway() {
		if err := req.setHostGateway(ctx, conn); err != nil {
			return compose.Result{}, err
		}
	}
	creds := &credentials{backend: b.backend}
	opt, err := solveOpt(req, spec, creds)
	if err != nil {
		return compose.Result{}, err
	}
	status := make(chan *client.SolveStatus)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for s := range status {
			progress(s)
		}
	}()
	response, err := conn.Solve(ctx, nil, *opt, status)
	<-told // Solve closes status
	if err != nil {
		if ctx.Err() != nil {
			return compose.Result{}, context.Cause(ctx)
		}
		return compose.Result{}, &Error{Service: spec.Service, Err: err, warnings: creds.warnings()}
	}
	return compose.Result{ID: response.ExporterResponse["containerimage.digest"], Warnings: creds.warnings()}, nil
}

// Close implements [engine.Builder].
func (b *builder) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	b.conn = nil
	return err
}

// connect returns the shared connection.
func (b *builder) connect(ctx context.Context) (*client.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		return b.conn, nil
	}
	// The connection outlives the build that opens it.
	conn, err := client.New(context.WithoutCancel(ctx), "",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return b.backend.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return b.backend.DialHijack(ctx, "/session", proto, meta)
		}),
	)
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return conn, nil
}

// solveOpt opens what the request names: folders, inline files, agents.
func solveOpt(req *request, spec compose.BuildSpec, creds *credentials) (*client.SolveOpt, error) {
	opt := &client.SolveOpt{
		Frontend:            req.Frontend,
		FrontendAttrs:       req.Attrs,
		LocalMounts:         map[string]fsutil.FS{},
		SharedKey:           req.SharedKey,
		CacheImports:        cacheOptions(req.CacheFrom),
		CacheExports:        cacheOptions(req.CacheTo),
		AllowedEntitlements: req.Entitlements,
		Exports:             []client.ExportEntry{{Type: exporter, Attrs: req.Export}},
	}
	for name, dir := range req.Folders {
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			return nil, fmt.Errorf("read %q for the build of service %q: %w", dir, spec.Service, err)
		}
		opt.LocalMounts[name] = fs
	}
	if req.Inline != "" {
		fs := staticfs.NewFS()
		fs.Add(inlineName, &fstypes.Stat{Mode: 0o644}, []byte(req.Inline))
		opt.LocalMounts[dockerfileMount] = fs
	}
	var err error
	opt.Session, err = attachables(req, spec, creds)
	return opt, err
}

// attachables are the services that BuildKit may call back for.
func attachables(req *request, spec compose.BuildSpec, creds *credentials) ([]session.Attachable, error) {
	all := []session.Attachable{
		authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: creds.get}),
		secretsprovider.NewSecretProvider(secretStore(spec.Secrets)),
	}
	if len(req.Agents) > 0 {
		agents := make([]sshprovider.AgentConfig, 0, len(req.Agents))
		for _, a := range req.Agents {
			c := sshprovider.AgentConfig{ID: a.ID}
			if a.Path != "" {
				c.Paths = []string{a.Path}
			}
			agents = append(agents, c)
		}
		p, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return nil, fmt.Errorf("build of service %q: ssh: %w", spec.Service, err)
		}
		all = append(all, p)
	}
	return all, nil
}

func cacheOptions(entries []cacheEntry) []client.CacheOptionsEntry {
	var all []client.CacheOptionsEntry
	for _, e := range entries {
		all = append(all, client.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	return all
}

// isDir reports whether path is a folder; its error is the one to show when it is not there.
func isDir(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return info.IsDir(), nil
}

// isFile reports whether path is there and no folder.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
