// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command guestbook serves one page: the entries, a form to add one, the number of visits, and which replica answered. Entries are kept in
// PostgreSQL, visits are counted in Redis.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const address = ":8080"

func main() {
	check := flag.Bool("check", false, "ask the running program whether it is well, for the health check")
	flag.Parse()
	run := serve
	if *check {
		run = checkHealth
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	password, err := os.ReadFile(os.Getenv("DATABASE_PASSWORD_FILE"))
	if err != nil {
		return fmt.Errorf("read the database password: %w", err)
	}
	db, err := openStore(os.Getenv("DATABASE_HOST"), strings.TrimSpace(string(password)))
	if err != nil {
		return err
	}
	defer db.Close()
	visits := newCounter(os.Getenv("CACHE_ADDRESS"))
	defer visits.Close()
	server := &http.Server{Addr: address, Handler: newHandler(host, db, visits), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_ = server.Shutdown(grace) // the process ends either way
	}()
	log.Printf("replica %s listens on %s", host, address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func checkHealth() error {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://localhost" + address + "/healthz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health: %s", resp.Status)
	}
	return nil
}
