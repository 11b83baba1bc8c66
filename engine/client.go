// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/seed71221737/dev/compose"
)

// Options say which engine to use, and how.
type Options struct {
	// Host is the engine's address: unix:///path, tcp://host:port, npipe:////./pipe/name or ssh://[user@]host[:port][/socket].
	Host string
	// TLS secures tcp:// addresses; nil is plain.
	TLS *tls.Config
	// Source says in a few words where Host comes from ("DOCKER_HOST"), for error messages.
	Source string
	// Environ is the process's environment, as os.Environ returns it. DOCKER_API_VERSION and DOCKER_CONFIG are read from it.
	Environ []string
	// ConfigDir is the folder of docker's config.json with the registry credentials; empty is DOCKER_CONFIG, then ~/.docker.
	ConfigDir string
	// NewBuilder makes what builds images, at the first build. Without it, builds are refused.
	NewBuilder func(Backend) Builder
	// Logger takes what may help to find a fault; nil discards.
	Logger *slog.Logger
}

// Backend is what a [Builder] is given of the client.
type Backend interface {
	// DialHijack opens one of the engine's upgraded connections: /grpc (protocol h2c) or /session.
	DialHijack(ctx context.Context, path, proto string, meta map[string][]string) (net.Conn, error)
	// RegistryAuth returns the credentials for a registry's host name from the user's docker configuration, empty if there are none.
	RegistryAuth(registry string) (Credentials, error)
}

// Builder builds images. Implementations are safe for concurrent use.
type Builder interface {
	// Build builds one image, loads it into the engine's store and returns its ID. Progress is told to progress, which is safe
	// for concurrent use: detail is whatever the builder's own renderer understands.
	Build(ctx context.Context, spec compose.BuildSpec, progress func(detail any)) (compose.Result, error)
	// Close releases the builder's connections.
	Close() error
}

// Client is one engine. It implements [compose.Engine] and is safe for concurrent use. Close releases it.
type Client struct {
	host     string
	source   string
	log      *slog.Logger
	facts    atomic.Pointer[facts]
	settling sync.Mutex
	api      atomic.Pointer[client.Client]
	// newAPI makes a client for an API version; pinned tells that the user chose the version.
	newAPI func(version string) (*client.Client, error)
	pinned bool

	registries *registries
	watch      *watcher
	newBuilder func(Backend) Builder
	builder    func() (Builder, error)
	built      atomic.Bool
	// root is what ownRoot has found out; rooting guards it.
	root    *string
	rooting sync.Mutex
	// ranges serialises starts that failed because the engine hands out port ranges without a lock of its own.
	ranges sync.Mutex
}

var _ compose.Engine = (*Client)(nil)

// facts are what the engine said of itself in its responses' headers.
type facts struct {
	version string        // the highest API version it speaks; empty if it did not say
	skew    time.Duration // the engine's clock minus ours, to a second
	moby    bool          // it is dockerd, not another program with the same interface
}

// Open makes a client. It reads no file and makes no call; errors are about the address only.
func Open(o Options) (*Client, error) {
	c := &Client{host: o.Host, source: o.Source, log: o.Logger, newBuilder: o.NewBuilder}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	opts, err := c.dialOptions(o)
	if err != nil {
		return nil, fmt.Errorf("use engine %q: %w", o.Host, err)
	}
	opts = append(opts, client.WithHTTPResponseHook(c.learn), client.WithHTTPResponseHook(keepHead))
	c.newAPI = func(version string) (*client.Client, error) {
		return client.New(append(opts, client.WithAPIVersion(version))...)
	}
	version := getenv(o.Environ, "DOCKER_API_VERSION")
	c.pinned = version != ""
	if version == "" {
		version = client.MaxAPIVersion
	}
	api, err := c.newAPI(version)
	if err != nil {
		return nil, fmt.Errorf("use engine %q: %w", o.Host, err)
	}
	c.api.Store(api)
	c.registries = newRegistries(o)
	c.watch = newWatcher(c)
	c.builder = sync.OnceValues(c.makeBuilder)
	return c, nil
}

// Host returns the engine's address as given to [Open].
func (c *Client) Host() string { return c.host }

// Close ends the client's event stream and closes its connections. Calls under way fail.
func (c *Client) Close() error {
	c.watch.close()
	var err error
	if c.built.Load() {
		if b, e := c.builder(); e == nil {
			err = b.Close()
		}
	}
	return errors.Join(err, c.api.Load().Close())
}

// learn remembers what a response's headers say about the engine.
func (c *Client) learn(r *http.Response) {
	f := facts{version: r.Header.Get("Api-Version"), moby: strings.HasPrefix(r.Header.Get("Server"), "Docker/")}
	if have := c.facts.Load(); f.version == "" && have != nil {
		f.version = have.version
	}
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		f.skew = time.Until(date)
	}
	c.facts.Store(&f)
}

// now returns the engine's time, to a second; ours before it answered for the first time.
func (c *Client) now() time.Time {
	if f := c.facts.Load(); f != nil {
		return time.Now().Add(f.skew)
	}
	return time.Now()
}

// conn returns the API client once the engine's version is known. It makes a call of its own (a ping) only when no other answered before.
func (c *Client) conn(ctx context.Context) (*client.Client, error) {
	if c.facts.Load() == nil && !c.pinned {
		if _, err := c.api.Load().Ping(ctx, client.PingOptions{}); err != nil {
			return nil, c.explain(err)
		}
	}
	if err := c.settle(); err != nil {
		return nil, err
	}
	return c.api.Load(), nil
}

// optimistic makes read-only calls without asking for the engine's version first: it assumes a current one, and repeats the calls once
// when the engine turns out to be older. So the version costs no call with a current engine.
func (c *Client) optimistic(ctx context.Context, calls func(context.Context, *client.Client) error) error {
	api := c.api.Load()
	err := calls(ctx, api)
	if err == nil {
		return nil
	}
	if settleErr := c.settle(); settleErr != nil {
		return settleErr
	}
	if now := c.api.Load(); now != api {
		err = calls(ctx, now)
	}
	return c.explain(err)
}

// settle replaces the API client if the engine said that it is older than the client assumes.
func (c *Client) settle() error {
	c.settling.Lock()
	defer c.settling.Unlock()
	f := c.facts.Load()
	if c.pinned || f == nil || f.version == "" || !versions.LessThan(f.version, c.api.Load().ClientVersion()) {
		return nil
	}
	if versions.LessThan(f.version, client.MinAPIVersion) {
		return fmt.Errorf("engine %q speaks API version %s; %s or newer is needed (Docker Engine 19.03)", c.host, f.version, client.MinAPIVersion)
	}
	api, err := c.newAPI(f.version)
	if err != nil {
		return err
	}
	c.api.Store(api)
	return nil
}

// Ping asks the engine for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.api.Load().Ping(ctx, client.PingOptions{})
	return c.explain(err)
}

// DialHijack implements [Backend].
func (c *Client) DialHijack(ctx context.Context, path, proto string, meta map[string][]string) (net.Conn, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := api.DialHijack(ctx, path, proto, meta)
	return conn, c.explain(err)
}

func (c *Client) makeBuilder() (Builder, error) {
	if c.newBuilder == nil {
		return nil, errors.New("this program cannot build images")
	}
	c.built.Store(true)
	return c.newBuilder(c), nil
}
