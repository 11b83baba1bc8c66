// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package endpoint decides which engine serves a command. It is the only place
// that does.
//
// The candidates, the first that is there wins: the --host flag, DOCKER_HOST,
// the active machine, the docker context (DOCKER_CONTEXT, or the current one of
// the docker CLI), the system's Docker (/var/run/docker.sock, if it answers),
// and the engine that dev carries, which is started on demand. What the user
// named is never passed over silently: a context that cannot be read is an
// error, not a reason to use another engine.
//
// The decision is a function of facts and of a Probe, which looks at sockets
// and files only as far as the decision needs; it connects nothing and starts
// nothing. Every candidate keeps the reason why it was or was not chosen, so
// that `dev engine status` can explain it.
package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strings"
)

// Source is what named an engine.
type Source string

// The sources, in the order in which they are considered.
const (
	SourceFlag     Source = "--host"
	SourceEnv      Source = "DOCKER_HOST"
	SourceMachine  Source = "machine"
	SourceContext  Source = "docker context"
	SourceSystem   Source = "system"
	SourceEmbedded Source = "dev's engine"
)

// Choice is the engine that serves a command.
type Choice struct {
	Source Source
	// Name is the machine's or the context's; else empty.
	Name string
	// Host is the engine's address: unix://, tcp://, npipe:// or ssh://.
	Host string
	// TLS secures a tcp:// address; nil is plain.
	TLS *tls.Config
	// Why is the reason in a few words, such as "DOCKER_HOST is set".
	Why string
	// Embedded says that it is the engine that dev carries, whoever named it.
	Embedded bool
	// Start says that it does not run and `dev up` has to start it.
	Start bool
	// Candidates are all that were considered, in order, the chosen included.
	Candidates []Candidate
}

// Candidate is one engine that was considered.
type Candidate struct {
	Source Source `json:"source"`
	Name   string `json:"name,omitempty"`
	Host   string `json:"host,omitempty"`
	Chosen bool   `json:"chosen"`
	// Why it was chosen or not.
	Why string `json:"why"`
}

// Engine is an address that somebody named.
type Engine struct {
	Name string
	Host string
	TLS  *tls.Config
}

// Embedded is what there is to know about the engine that dev carries.
type Embedded struct {
	// Host is its address; empty where dev cannot run one.
	Host string
	// Why there can be none, when Host is empty.
	Why string
}

// Inputs are the facts of a decision.
type Inputs struct {
	// Flag is the value of --host.
	Flag string
	// Getenv reads the process's environment.
	Getenv func(string) string
	// Machine finds the active machine; nil, or a nil engine, when there is none.
	Machine func(context.Context) (*Engine, error)
	// Embedded is the engine that dev carries.
	Embedded Embedded
	// All looks at every candidate although an earlier one is chosen, to
	// explain the decision.
	All bool
}

// Probe looks at what the decision needs to know of the system.
type Probe interface {
	// CurrentContext is the name of the docker CLI's current context; empty or
	// "default" is none.
	CurrentContext() (string, error)
	// Context reads a docker context.
	Context(name string) (Engine, error)
	// Certificates reads the TLS material of DOCKER_CERT_PATH.
	Certificates(dir string, verify bool) (*tls.Config, error)
	// Answers returns nil when a Docker Engine answers at a unix socket or
	// named pipe.
	Answers(ctx context.Context, host string) error
}

// NoEngineError says that no candidate was there.
type NoEngineError struct{ Candidates []Candidate }

func (e *NoEngineError) Error() string {
	var reasons []string
	for _, c := range e.Candidates {
		if c.Source == SourceSystem || c.Source == SourceEmbedded {
			reasons = append(reasons, fmt.Sprintf("%s: %s", c.Source, c.Why))
		}
	}
	return "find an engine: there is none (" + strings.Join(reasons, "; ") + ")"
}

// Hint names the next step.
func (e *NoEngineError) Hint() string {
	return "name one with --host or DOCKER_HOST; `dev engine status` shows what was considered"
}

// Resolve decides which engine serves a command.
func Resolve(ctx context.Context, in Inputs, p Probe) (Choice, error) {
	r := resolver{in: in, probe: p}
	for _, look := range []func(context.Context) error{r.flag, r.env, r.machine, r.context, r.system, r.embedded} {
		if err := look(ctx); err != nil && !r.found {
			return Choice{Candidates: r.choice.Candidates}, err
		}
		if r.found && !in.All {
			break
		}
	}
	if !r.found {
		return Choice{Candidates: r.choice.Candidates}, &NoEngineError{r.choice.Candidates}
	}
	r.start(ctx)
	return r.choice, nil
}

// resolver collects candidates until one wins.
type resolver struct {
	in     Inputs
	probe  Probe
	found  bool
	choice Choice
	asked  bool  // whether our own engine answers
	answer error // what it answered
}

// own asks our own engine, once.
func (r *resolver) own(ctx context.Context) error {
	if !r.asked {
		r.asked, r.answer = true, r.probe.Answers(ctx, r.in.Embedded.Host)
	}
	return r.answer
}

// offer considers an engine that is there.
func (r *resolver) offer(s Source, e Engine, why string) {
	c := Candidate{Source: s, Name: e.Name, Host: e.Host, Why: why}
	if r.found {
		c.Why += "; " + string(r.choice.Source) + " comes first"
	} else {
		r.found, c.Chosen = true, true
		r.choice.Source, r.choice.Name, r.choice.Host, r.choice.TLS, r.choice.Why = s, e.Name, e.Host, e.TLS, why
	}
	r.choice.Candidates = append(r.choice.Candidates, c)
}

// pass notes an engine that is not there.
func (r *resolver) pass(s Source, e Engine, why string) {
	r.choice.Candidates = append(r.choice.Candidates, Candidate{Source: s, Name: e.Name, Host: e.Host, Why: why})
}

// fail notes an engine that was named and cannot be used.
func (r *resolver) fail(s Source, e Engine, err error) error {
	r.pass(s, e, err.Error())
	return err
}

func (r *resolver) flag(context.Context) error {
	return r.named(SourceFlag, r.in.Flag)
}

func (r *resolver) env(context.Context) error {
	return r.named(SourceEnv, r.in.Getenv("DOCKER_HOST"))
}

// named is an address that the user gave; certificates come from the
// environment as with the docker CLI.
func (r *resolver) named(s Source, value string) error {
	if value == "" {
		r.pass(s, Engine{}, "is not set")
		return nil
	}
	host, err := ParseHost(value)
	if err != nil {
		return r.fail(s, Engine{Host: value}, fmt.Errorf("%s: %w", s, err))
	}
	e := Engine{Host: host}
	verify := r.in.Getenv("DOCKER_TLS_VERIFY") != ""
	if strings.HasPrefix(host, "tcp://") && (verify || r.in.Getenv("DOCKER_TLS") != "") {
		if e.TLS, err = r.probe.Certificates(r.in.Getenv("DOCKER_CERT_PATH"), verify); err != nil {
			return r.fail(s, e, fmt.Errorf("read certificates for %s: %w", host, err))
		}
	}
	r.offer(s, e, "is set")
	return nil
}

func (r *resolver) machine(ctx context.Context) error {
	if r.in.Machine == nil {
		r.pass(SourceMachine, Engine{}, "no machine is active")
		return nil
	}
	e, err := r.in.Machine(ctx)
	switch {
	case err != nil:
		return r.fail(SourceMachine, Engine{}, fmt.Errorf("find the active machine: %w", err))
	case e == nil:
		r.pass(SourceMachine, Engine{}, "no machine is active")
	default:
		r.offer(SourceMachine, *e, "is active")
	}
	return nil
}

func (r *resolver) context(context.Context) error {
	name, origin := r.in.Getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT names it"
	if name == "" {
		var err error
		if name, err = r.probe.CurrentContext(); err != nil {
			return r.fail(SourceContext, Engine{}, err)
		}
		origin = "is the docker CLI's current one"
	}
	if name == "" || name == "default" {
		r.pass(SourceContext, Engine{}, "no context but the default one is in use")
		return nil
	}
	e, err := r.probe.Context(name)
	if err != nil {
		return r.fail(SourceContext, Engine{Name: name}, err)
	}
	r.offer(SourceContext, e, origin)
	return nil
}

func (r *resolver) system(ctx context.Context) error {
	e := Engine{Host: SystemHost}
	if r.in.Embedded.Host == SystemHost {
		return nil // it is the same engine
	}
	err := r.probe.Answers(ctx, SystemHost)
	switch {
	case err == nil:
		r.offer(SourceSystem, e, "answers")
	case errors.Is(err, fs.ErrPermission) && r.own(ctx) != nil:
		// an engine of our own could not be started either: better the error
		// that says what to do about this one
		r.offer(SourceSystem, e, "is there, but this user may not use it: "+err.Error())
	default:
		r.pass(SourceSystem, e, err.Error())
	}
	return nil
}

func (r *resolver) embedded(ctx context.Context) error {
	e := Engine{Host: r.in.Embedded.Host}
	if e.Host == "" {
		r.pass(SourceEmbedded, e, r.in.Embedded.Why)
		return nil
	}
	why := "is running"
	if err := r.own(ctx); err != nil {
		why = "is there for everything else, not running: " + err.Error()
	}
	r.offer(SourceEmbedded, e, why)
	return nil
}

// start finds out whether the choice is our engine, and whether it has to be
// started: one that only refuses this user runs.
func (r *resolver) start(ctx context.Context) {
	if r.in.Embedded.Host == "" || r.choice.Host != r.in.Embedded.Host {
		return
	}
	r.choice.Embedded = true
	err := r.own(ctx)
	r.choice.Start = err != nil && !errors.Is(err, fs.ErrPermission)
}

// LocalHost is the address of an engine that listens at a unix socket or named
// pipe.
func LocalHost(path string) string {
	if pipe, ok := strings.CutPrefix(path, `\\.\pipe\`); ok {
		return "npipe:////./pipe/" + pipe
	}
	return "unix://" + path
}

// HostError says that an address is not one of an engine.
type HostError struct{ Value string }

func (e *HostError) Error() string { return fmt.Sprintf("%q is not the address of an engine", e.Value) }

// Hint shows the forms.
func (e *HostError) Hint() string {
	return "use unix:///path/to/socket, tcp://host:port, ssh://[user@]host or npipe:////./pipe/name"
}

// ParseHost checks an address and gives it its full form, as the docker CLI
// does: a bare host:port is TCP.
func ParseHost(value string) (string, error) {
	value = strings.TrimSpace(value)
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		scheme, rest = "tcp", value
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return "unix:///var/run/docker.sock", nil
		}
		if !strings.HasPrefix(rest, "/") {
			return "", &HostError{value}
		}
	case "npipe":
		if rest == "" {
			return "", &HostError{value}
		}
	case "tcp":
		if !ok && strings.Contains(rest, "/") { // a path, or unix:/path
			return "", &HostError{value}
		}
		return parseTCP(value, rest)
	case "ssh":
		if u, err := url.Parse(value); err != nil || u.Hostname() == "" {
			return "", &HostError{value}
		}
	default:
		return "", &HostError{value}
	}
	return scheme + "://" + rest, nil
}

// parseTCP completes a TCP address with the host and port that the docker CLI
// assumes.
func parseTCP(value, rest string) (string, error) {
	u, err := url.Parse("tcp://" + rest)
	if err != nil || rest == "" || u.User != nil || u.RawQuery != "" {
		return "", &HostError{value}
	}
	host, port := u.Hostname(), u.Port()
	if host == "" && port == "" || strings.ContainsAny(host, "/\\ ") {
		return "", &HostError{value}
	}
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = "2375"
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	return "tcp://" + host + ":" + port + strings.TrimSuffix(u.Path, "/"), nil
}
