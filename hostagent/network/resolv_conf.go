// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// serverTimeout is how long one name server may take before the next is asked, where the file does not say it.
const serverTimeout = 3 * time.Second

// ResolvConf asks the name servers of a resolv.conf, and passes their answers on as they are. The file is looked at for each query, and read where it
// has changed, so that a VPN that comes or goes is followed. It is safe for concurrent use.
type ResolvConf struct {
	File string

	mu   sync.Mutex
	seen os.FileInfo
	conf *dns.ClientConfig
}

// config is the file as it is now. A file that is gone or damaged for a moment (it is being written) leaves the last one valid.
func (r *ResolvConf) config() (*dns.ClientConfig, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.File)
	if err == nil && r.conf != nil && os.SameFile(info, r.seen) && info.ModTime().Equal(r.seen.ModTime()) && info.Size() == r.seen.Size() {
		return r.conf, nil
	}
	var conf *dns.ClientConfig
	if err == nil {
		conf, err = dns.ClientConfigFromFile(r.File)
	}
	if err != nil {
		if r.conf != nil {
			return r.conf, nil
		}
		return nil, fmt.Errorf("read the host's name servers: %w", err)
	}
	if len(conf.Servers) == 0 {
		conf.Servers = []string{"127.0.0.1"} // as the C library has it
	}
	r.conf, r.seen = conf, info
	return conf, nil
}

// Search are the file's search domains now.
func (r *ResolvConf) Search() []string {
	conf, err := r.config()
	if err != nil {
		return nil
	}
	return conf.Search
}

// Resolve asks one name server after the other until one answers.
func (r *ResolvConf) Resolve(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	conf, err := r.config()
	if err != nil {
		return nil, err
	}
	var failed error
	var refused *dns.Msg
	for range max(1, min(conf.Attempts, 2)) {
		for _, server := range conf.Servers {
			reply, err := ask(ctx, net.JoinHostPort(server, conf.Port), query)
			switch {
			case err != nil:
				failed = errors.Join(failed, err)
			case reply.Rcode == dns.RcodeServerFailure || reply.Rcode == dns.RcodeRefused:
				refused = reply
			default:
				return reply, nil
			}
			if ctx.Err() != nil {
				return nil, errors.Join(failed, ctx.Err())
			}
		}
		if refused != nil {
			return refused, nil
		}
	}
	return nil, failed
}

// ask asks one server by UDP, and by TCP where the answer is too long.
func ask(ctx context.Context, server string, query *dns.Msg) (*dns.Msg, error) {
	query = query.Copy()
	query.Id = dns.Id()
	size := uint16(dns.MinMsgSize)
	if o := query.IsEdns0(); o != nil {
		size = o.UDPSize()
	}
	c := &dns.Client{Timeout: serverTimeout, UDPSize: size}
	reply, _, err := c.ExchangeContext(ctx, query, server)
	if err == nil && reply.Truncated {
		c.Net = "tcp"
		reply, _, err = c.ExchangeContext(ctx, query, server)
	}
	return reply, err
}
