// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/cli/connhelper"
	"github.com/moby/moby/client"
)

const (
	// dialTimeout bounds the making of a connection.
	dialTimeout = 15 * time.Second
	// idleConns are kept for reuse: as many as operations usually run at once, so that applying a plan does not dial for each.
	idleConns   = 16
	idleTimeout = 30 * time.Second
)

// dialer opens a connection to the engine at addr; only TCP looks at addr, which may be a proxy's.
type dialer func(ctx context.Context, addr string) (net.Conn, error)

// dialOptions are the API client's options for the address.
func (c *Client) dialOptions(o Options) ([]client.Opt, error) {
	scheme, rest, ok := strings.Cut(o.Host, "://")
	if !ok || rest == "" {
		return nil, errors.New("the address needs a scheme: unix://, tcp://, npipe:// or ssh://")
	}
	transport := &http.Transport{MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: idleTimeout}
	// HTTP/1 only: left to itself, the transport prepares HTTP/2 over TLS at its first use, and the API client takes a transport with TLS
	// settings for one of https.
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	host := o.Host
	var dial dialer
	switch scheme {
	case "unix", "npipe":
		dial = func(ctx context.Context, _ string) (net.Conn, error) { return dialLocal(ctx, scheme, rest) }
	case "tcp", "http", "https":
		host = "tcp://" + rest
		transport.TLSClientConfig = o.TLS
		if scheme == "https" && o.TLS == nil {
			transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", addr)
		}
	case "ssh":
		helper, err := connhelper.GetConnectionHelper(o.Host)
		if err != nil {
			return nil, err
		}
		// A local scheme for the API client, so that no HTTP proxy is asked for the way to a host that only ssh knows.
		host = "unix:///ssh"
		dial = func(ctx context.Context, _ string) (net.Conn, error) { return helper.Dialer(ctx, "", "") }
	default:
		return nil, fmt.Errorf("unknown scheme %q: use unix://, tcp://, npipe:// or ssh://", scheme)
	}
	return []client.Opt{
		client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
		client.WithHost(host),
		client.WithDialContext(func(ctx context.Context, _, addr string) (net.Conn, error) {
			conn, err := dial(ctx, addr)
			return conn, c.diagnose(ctx, err)
		}),
	}, nil
}

// getenv returns a variable of an environment in the form of os.Environ; the last one of a name counts.
func getenv(environ []string, name string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// homeFolder is the user's, by the environment given.
func homeFolder(environ []string) string {
	for _, name := range []string{"HOME", "USERPROFILE"} {
		if dir := getenv(environ, name); dir != "" {
			return dir
		}
	}
	dir, _ := os.UserHomeDir()
	return dir
}
