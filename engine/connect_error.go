// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
)

// ConnectError tells that the engine could not be reached, why, and what to type. It keeps the cause's words only: the API client
// would replace an error that it recognises by one of its own.
type ConnectError struct {
	// Host is the engine's address, Source where it came from (may be empty).
	Host, Source string
	// Reason is what went wrong, in one phrase.
	Reason string
	hint   string
}

// Error names the address, where it came from, and the reason.
func (e *ConnectError) Error() string {
	from := ""
	if e.Source != "" {
		from = " (from " + e.Source + ")"
	}
	return fmt.Sprintf("connect to engine %q%s: %s", e.Host, from, e.Reason)
}

// Hint returns the next command to type.
func (e *ConnectError) Hint() string { return e.hint }

// diagnose turns a failed attempt to connect into a [ConnectError]; a cancelled one stays what it is.
func (c *Client) diagnose(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	e := &ConnectError{Host: c.host, Source: c.source}
	e.Reason, e.hint = connectReason(c.host, err)
	return e
}

// connectReason explains a failed attempt to connect.
func connectReason(host string, err error) (reason, hint string) {
	scheme, path, _ := strings.Cut(host, "://")
	local := scheme == "unix" || scheme == "npipe"
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case local && errors.Is(err, fs.ErrNotExist):
		return "there is no such socket: no engine runs there", "start an engine: dev engine start (or see which one is used: dev engine status)"
	case local && errors.Is(err, fs.ErrPermission):
		return "permission denied" + socketOwner(path), permissionHint(path)
	case local && errors.Is(err, syscall.ECONNREFUSED):
		return "nobody answers at the socket: the engine does not run", "start an engine: dev engine start (or see which one is used: dev engine status)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the host refuses the connection: no engine listens at that port", "check the address: dev engine status"
	case errors.As(err, &dns):
		return fmt.Sprintf("unknown host %q", dns.Name), "check the address: dev engine status"
	case errors.As(err, &netErr) && netErr.Timeout():
		return "no answer in time", "check that the host is up and reachable: dev engine status"
	case scheme == "ssh":
		return sshWords(err), sshHint(path)
	}
	return plainWords(err), "see which engine is used: dev engine status"
}

// plainWords is an error's innermost message: operation and address are said already.
func plainWords(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return strings.TrimSpace(err.Error())
		}
		err = inner
	}
}

// sshWords is what ssh said, of the much that is said around it.
func sshWords(err error) string {
	_, words, ok := strings.Cut(err.Error(), "stderr=")
	if words = strings.TrimSpace(words); !ok || words == "" {
		return plainWords(err)
	}
	return "ssh: " + words
}

func sshHint(destination string) string {
	return "check that this works without a question: ssh " + destination + " docker version"
}

// wantsTLS is what an HTTPS server of Go's answers to plain HTTP.
const wantsTLS = "HTTP request to an HTTPS server"

// connectionFailed explains an error of the API client's transport that is not the dialler's: mostly TLS.
func (c *Client) connectionFailed(err error) error {
	e := &ConnectError{Host: c.host, Source: c.source, hint: "see which engine is used: dev engine status"}
	var unknownCA x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	text := err.Error()
	destination, overSSH := strings.CutPrefix(c.host, "ssh://")
	switch {
	case overSSH:
		e.Reason, e.hint = sshWords(err), sshHint(destination)
	case errors.As(err, &unknownCA), errors.As(err, &hostname), errors.As(err, &invalid):
		e.Reason, e.hint = "its certificate is not trusted: "+plainWords(err), "check the certificates in DOCKER_CERT_PATH, or make new ones"
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		e.Reason, e.hint = "it does not speak TLS", "unset DOCKER_TLS_VERIFY, or use the port that has TLS (2376)"
	case strings.Contains(text, "without TLS"), strings.Contains(text, wantsTLS):
		e.Reason, e.hint = "it wants TLS", "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem"
	case strings.Contains(text, "client authentication"):
		e.Reason, e.hint = "it wants a client certificate", "set DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem"
	case strings.HasSuffix(text, "EOF"), strings.Contains(text, "server closed idle connection"), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Reason, e.hint = "it closed the connection: the engine may be stopping or restarting", "see its state: dev engine status"
	default:
		e.Reason = plainWords(err)
	}
	return e
}

// explain turns an error of the API client into ours: connection problems are explained, and the engine's answers are stripped of the
// client's prefix. It keeps cancellation and the kinds of package errdefs recognisable.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	if connect, ok := errors.AsType[*ConnectError](err); ok {
		return connect
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if client.IsErrConnectionFailed(err) || strings.Contains(err.Error(), wantsTLS) {
		return c.connectionFailed(err)
	}
	if text, ok := strings.CutPrefix(err.Error(), "Error response from daemon: "); ok {
		return &apiError{text: text, err: err}
	}
	return err
}

// doing says what failed, unless it is that there is no engine: then that is all there is to say.
func doing(what string, err error) error {
	if _, ok := errors.AsType[*ConnectError](err); ok {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// apiError is the engine's own answer.
type apiError struct {
	text string
	err  error
}

func (e *apiError) Error() string { return e.text }
func (e *apiError) Unwrap() error { return e.err }
