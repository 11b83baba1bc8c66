// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/seed71221737/dev/engine/build/wire"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// server serves one dev. Its builds share a connection to BuildKit.
type server struct {
	session *yamux.Session

	mu   sync.Mutex
	conn *client.Client
}

// build builds, and returns the event that ends it.
func (s *server) build(ctx context.Context, req *wire.Request, tell func(*wire.Status)) wire.Event {
	creds := &credentials{ask: func(registry string) (wire.Credentials, error) { return s.credentials(ctx, registry) }}
	result, err := s.solve(ctx, req, creds, tell)
	if err == nil {
		result.Warnings = creds.warnings()
		return wire.Event{Result: result}
	}
	var blamed strings.Builder
	for _, source := range errdefs.Sources(err) {
		_ = source.Print(&blamed) // writes to memory
	}
	return wire.Event{Failure: &wire.Failure{Text: err.Error(), Source: blamed.String(), Warnings: creds.warnings()}}
}

// solve returns the ID of the image, or the report of a check.
func (s *server) solve(ctx context.Context, req *wire.Request, creds *credentials, tell func(*wire.Status)) (*wire.Result, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the engine's builder: %w", err)
	}
	if req.HostGateway != "" {
		if err := setHostGateway(ctx, conn, req); err != nil {
			return nil, err
		}
	}
	opt, err := solveOpt(req, creds)
	if err != nil {
		return nil, err
	}
	status := make(chan *client.SolveStatus)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for s := range status {
			tell(statusOf(s))
		}
	}()
	if req.Check {
		result, err := check(ctx, conn, opt, status)
		<-told
		return result, err
	}
	response, err := conn.Solve(ctx, nil, *opt, status)
	<-told // Solve closes status
	if err != nil {
		return nil, err
	}
	return &wire.Result{ID: response.ExporterResponse["containerimage.digest"]}, nil
}

// close releases the connection.
func (s *server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

// connect returns the shared connection.
func (s *server) connect(ctx context.Context) (*client.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return s.conn, nil
	}
	// The connection outlives the build that opens it.
	conn, err := client.New(context.WithoutCancel(ctx), "",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.dial(ctx, "/grpc", "h2c", nil) }),
		client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return s.dial(ctx, "/session", proto, meta)
		}),
	)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return conn, nil
}

// solveOpt opens what the request names: folders, inline files, agents.
func solveOpt(req *wire.Request, creds *credentials) (*client.SolveOpt, error) {
	opt := &client.SolveOpt{
		Frontend:            req.Frontend,
		FrontendAttrs:       req.Attrs,
		LocalMounts:         map[string]fsutil.FS{},
		SharedKey:           req.SharedKey,
		CacheImports:        cacheOptions(req.CacheFrom),
		CacheExports:        cacheOptions(req.CacheTo),
		AllowedEntitlements: req.Entitlements,
		Exports:             []client.ExportEntry{{Type: req.Exporter, Attrs: req.Export}},
	}
	for name, dir := range req.Folders {
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", dir, err)
		}
		opt.LocalMounts[name] = fs
	}
	if req.Inline != "" {
		fs := staticfs.NewFS()
		fs.Add(req.InlineName, &fstypes.Stat{Mode: 0o644}, []byte(req.Inline))
		opt.LocalMounts[req.InlineMount] = fs
	}
	var err error
	opt.Session, err = attachables(req, creds)
	return opt, err
}

// attachables are the services that BuildKit may call back for.
func attachables(req *wire.Request, creds *credentials) ([]session.Attachable, error) {
	all := []session.Attachable{
		authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: creds.get}),
		secretsprovider.NewSecretProvider(secretStore(req.Secrets)),
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
			return nil, fmt.Errorf("ssh: %w", err)
		}
		all = append(all, p)
	}
	return all, nil
}

func cacheOptions(entries []wire.Cache) []client.CacheOptionsEntry {
	var all []client.CacheOptionsEntry
	for _, e := range entries {
		all = append(all, client.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	return all
}

// statusOf is BuildKit's news in our words.
func statusOf(s *client.SolveStatus) *wire.Status {
	out := &wire.Status{}
	for _, v := range s.Vertexes {
		out.Steps = append(out.Steps, wire.Step{
			ID: v.Digest.String(), Name: v.Name, Started: v.Started, Completed: v.Completed, Cached: v.Cached, Error: v.Error,
		})
	}
	for _, p := range s.Statuses {
		out.Parts = append(out.Parts, wire.Part{
			Step: p.Vertex.String(), Name: p.ID, Current: p.Current, Total: p.Total, Started: p.Started, Completed: p.Completed,
		})
	}
	for _, l := range s.Logs {
		out.Logs = append(out.Logs, wire.Log{Step: l.Vertex.String(), Data: l.Data, At: l.Timestamp})
	}
	for _, w := range s.Warnings {
		out.Warnings = append(out.Warnings, wire.Warning{Step: w.Vertex.String(), Text: string(w.Short)})
	}
	return out
}
