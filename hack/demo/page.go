// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// greeting begins the entries that the demo makes.
const greeting = "hello from make demo, "

// show signs the guestbook, and shows the page and the database.
func (d *demo) show(ctx context.Context) error {
	message := greeting + time.Now().UTC().Format("2006-01-02 15:04:05")
	address := "http://localhost:" + d.port + "/"
	heading("Signing the guestbook at " + address)
	page, err := sign(ctx, address, "Ada", message)
	if err != nil {
		return err
	}
	fmt.Print(plain(page))
	if !strings.Contains(page, message) {
		return fmt.Errorf("the page at %s lacks the entry %q", address, message)
	}

	heading("The entry in PostgreSQL: dev exec db psql guestbook")
	var rows strings.Builder
	cmd := d.command(ctx, "exec", "-T", "db", "psql", "guestbook", "-c", "SELECT id, author, message FROM entry ORDER BY id DESC LIMIT 3")
	cmd.Stdout = io.MultiWriter(os.Stdout, &rows)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("look into the database: %w", err)
	}
	if !strings.Contains(rows.String(), message) {
		return fmt.Errorf("the database lacks the entry %q", message)
	}
	return nil
}

// sign posts an entry and returns the page that the form leads to.
func sign(ctx context.Context, address, author, message string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	form := url.Values{"author": {author}, "message": {message}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// no proxy: the page is on this machine
	response, err := (&http.Client{Transport: &http.Transport{}}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("sign the guestbook: %s: %s", response.Status, body)
	}
	return string(body), nil
}

var (
	head  = regexp.MustCompile(`(?s)<head>.*</head>`)
	form  = regexp.MustCompile(`(?s)<form.*</form>`)
	tag   = regexp.MustCompile(`<[^>]*>`)
	blank = regexp.MustCompile(`(?m)^\s*\n`)
	line  = regexp.MustCompile(`(?m)^`)
)

// plain is a page as text, indented.
func plain(page string) string {
	text := tag.ReplaceAllString(form.ReplaceAllString(head.ReplaceAllString(page, ""), ""), "")
	text = blank.ReplaceAllString(html.UnescapeString(text), "")
	return strings.TrimRight(line.ReplaceAllString(text, "  "), " ")
}
