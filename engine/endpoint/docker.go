// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/cli/cli/context/store"
	"github.com/mitchellh/go-homedir"
)

// dockerEndpoint is the name under which contexts keep the Docker API's address.
const dockerEndpoint = "docker"

// contextEndpoint is an endpoint as the docker CLI stores it.
type contextEndpoint struct {
	Host          string
	SkipTLSVerify bool
}

// contextMeta is what the docker CLI stores of a context itself.
type contextMeta struct {
	Description string         `json:",omitempty"`
	Additional  map[string]any `json:",omitempty"`
}

// Docker reads the docker CLI's folder and asks sockets. It is the Probe of
// the real system.
type Docker struct {
	// Dir is the folder: DOCKER_CONFIG or ~/.docker.
	Dir string
}

// DockerDir is the docker CLI's folder: DOCKER_CONFIG, or ~/.docker.
func DockerDir(getenv func(string) string) (string, error) {
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		return dir, nil
	}
	dir, err := homedir.Expand("~/.docker")
	if err != nil {
		return "", fmt.Errorf("find the folder of the docker CLI: %w", err)
	}
	return dir, nil
}

// CurrentContext reads the name from the docker CLI's config.json.
func (d Docker) CurrentContext() (string, error) {
	name := filepath.Join(d.Dir, "config.json")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the docker CLI's settings: %w", err)
	}
	var config struct {
		CurrentContext string `json:"currentContext"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return "", fmt.Errorf("read the docker CLI's settings %q: %w", name, err)
	}
	return config.CurrentContext, nil
}

func (d Docker) store() *store.ContextStore {
	config := store.NewConfig(func() any { return &contextMeta{} },
		store.EndpointTypeGetter(dockerEndpoint, func() any { return &contextEndpoint{} }))
	return store.New(filepath.Join(d.Dir, "contexts"), config)
}

// ContextError says that a docker context that is in use cannot be read.
type ContextError struct {
	Name string
	Err  error
}

func (e *ContextError) Error() string {
	return fmt.Sprintf("read docker context %q: %v", e.Name, e.Err)
}

func (e *ContextError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *ContextError) Hint() string {
	return "`docker context ls` shows what there is; `docker context use default`, or --host, uses another"
}

// Context reads a docker context with its TLS material.
func (d Docker) Context(name string) (Engine, error) {
	e, err := d.readContext(name)
	if err != nil {
		return Engine{Name: name}, &ContextError{Name: name, Err: err}
	}
	return e, nil
}

func (d Docker) readContext(name string) (Engine, error) {
	meta, err := d.store().GetMetadata(name)
	if err != nil {
		return Engine{}, err
	}
	ep, ok := meta.Endpoints[dockerEndpoint].(contextEndpoint)
	if p, isPointer := meta.Endpoints[dockerEndpoint].(*contextEndpoint); isPointer {
		ep, ok = *p, true
	}
	if !ok || ep.Host == "" {
		return Engine{}, errors.New("it has no address of a Docker Engine")
	}
	host, err := ParseHost(ep.Host)
	if err != nil {
		return Engine{}, err
	}
	material := map[string][]byte{}
	files, err := d.store().ListTLSFiles(name)
	if err != nil {
		return Engine{}, err
	}
	for _, file := range files[dockerEndpoint] {
		if material[file], err = d.store().GetTLSData(name, dockerEndpoint, file); err != nil {
			return Engine{}, err
		}
	}
	e := Engine{Name: name, Host: host}
	if len(material) > 0 || ep.SkipTLSVerify {
		e.TLS, err = tlsConfig(material, !ep.SkipTLSVerify)
	}
	return e, err
}

// Certificates reads ca.pem, cert.pem and key.pem of a folder, the docker
// CLI's own when it is empty. Without verify a missing ca.pem is accepted.
func (d Docker) Certificates(dir string, verify bool) (*tls.Config, error) {
	if dir == "" {
		dir = d.Dir
	}
	material := map[string][]byte{}
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && (!verify || name != "ca.pem") {
			continue
		}
		if err != nil {
			return nil, err
		}
		material[name] = data
	}
	return tlsConfig(material, verify)
}

// tlsConfig makes the configuration of a client of PEM material.
func tlsConfig(material map[string][]byte, verify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify}
	if ca := material["ca.pem"]; len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("ca.pem holds no certificate")
		}
	}
	cert, key := material["cert.pem"], material["key.pem"]
	if len(cert) == 0 && len(key) == 0 {
		return c, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cert.pem and key.pem: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// answerDeadline is long enough for a Docker that systemd starts when
// somebody connects.
const answerDeadline = 10 * time.Second

// Answers asks for the Docker API's version at a unix socket or named pipe.
func (d Docker) Answers(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, answerDeadline)
	defer cancel()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialLocal(ctx, host) }
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return notAnswering(err)
	}
	defer resp.Body.Close() // HEAD: empty
	if resp.Header.Get("Api-Version") == "" {
		return errors.New("what answers there is not a Docker Engine")
	}
	return nil
}

// reason says in a few words why a socket does not answer.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }

func (r *reason) Unwrap() error { return r.err }

func notAnswering(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &reason{"there is no socket", err}
	case errors.Is(err, fs.ErrPermission):
		return &reason{"permission denied: root and members of the socket's group may use it", err}
	case isRefused(err):
		return &reason{"nobody listens at the socket", err}
	case errors.Is(err, context.DeadlineExceeded):
		return &reason{fmt.Sprintf("no answer within %s", answerDeadline), err}
	}
	return err
}
