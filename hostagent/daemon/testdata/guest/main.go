// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command guest runs in a machine, for tests.
//
// "guest serve" answers on TCP ports 7 (echo), 9 (takes everything) and 19 (sends 32 MiB), and on UDP port 7 (echo). "guest ping SOCKET" measures how long the
// Docker API at a unix socket takes to answer its smallest question: the median in microseconds of a kept connection, and of new ones.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

func main() {
	err := errors.New("usage: guest serve | guest ping SOCKET")
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	case len(os.Args) == 3 && os.Args[1] == "ping":
		err = ping()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	for port, handle := range map[string]func(net.Conn){
		":7":  func(c net.Conn) { _, _ = io.Copy(c, c) },
		":9":  func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		":19": func(c net.Conn) { _, _ = c.Write(make([]byte, 32<<20)) },
	} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		go accept(l, handle)
	}
	c, err := net.ListenPacket("udp", ":7")
	if err != nil {
		return err
	}
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func accept(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

func ping() error {
	kept, err := dial()
	if err != nil {
		return err
	}
	fmt.Println(median(func() error { return ask(kept) }), median(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return ask(c)
	}))
	return nil
}

func dial() (net.Conn, error) { return net.Dial("unix", os.Args[2]) }

func ask(c net.Conn) error {
	if _, err := io.WriteString(c, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func median(f func() error) int64 {
	var took []int64
	for range 200 {
		began := time.Now()
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		took = append(took, time.Since(began).Microseconds())
	}
	slices.Sort(took)
	return took[len(took)/2]
}
