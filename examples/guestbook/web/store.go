// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"net/url"
	"time"

	"github.com/gomodule/redigo/redis"
	_ "github.com/lib/pq"
)

type entry struct {
	Author, Message string
	Written         time.Time
}

// postgres is a store.
type postgres struct{ *sql.DB }

// openStore connects at the first use, not now.
func openStore(host, password string) (postgres, error) {
	u := url.URL{Scheme: "postgres", Host: host, Path: "guestbook", RawQuery: "sslmode=disable&connect_timeout=3"}
	u.User = url.UserPassword("postgres", password)
	db, err := sql.Open("postgres", u.String())
	return postgres{db}, err
}

func (p postgres) Ping(ctx context.Context) error { return p.PingContext(ctx) }

func (p postgres) Add(ctx context.Context, author, message string) error {
	_, err := p.ExecContext(ctx, "INSERT INTO entry (author, message) VALUES ($1, $2)", author, message)
	return err
}

// Entries returns the latest entries, newest first.
func (p postgres) Entries(ctx context.Context) ([]entry, error) {
	rows, err := p.QueryContext(ctx, "SELECT author, message, written FROM entry ORDER BY id DESC LIMIT 50")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []entry
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.Author, &e.Message, &e.Written); err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	return found, rows.Err()
}

// redisCounter is a counter.
type redisCounter struct{ *redis.Pool }

func newCounter(address string) redisCounter {
	return redisCounter{&redis.Pool{
		MaxIdle:     4,
		IdleTimeout: time.Minute,
		DialContext: func(ctx context.Context) (redis.Conn, error) {
			return redis.DialContext(ctx, "tcp", address, redis.DialConnectTimeout(3*time.Second), redis.DialReadTimeout(3*time.Second))
		},
		// a connection that was idle may have ended with the server
		TestOnBorrow: func(c redis.Conn, idle time.Time) error {
			_, err := c.Do("PING")
			return err
		},
	}}
}

func (c redisCounter) Next(ctx context.Context) (int64, error) {
	conn, err := c.GetContext(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return redis.Int64(conn.Do("INCR", "visits"))
}
