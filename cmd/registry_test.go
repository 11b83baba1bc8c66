// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // the registry's storage
	"github.com/sirupsen/logrus"
)

// startRegistry runs a registry on the loopback until the test ends and returns its address. Repositories under open/ are for everybody, the others
// for the user me with the password geheim.
func startRegistry(t *testing.T) string {
	t.Helper()
	logrus.SetOutput(io.Discard) // the registry's log
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cfg := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory": nil, "maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	cfg.HTTP.Secret = "test"
	app := handlers.NewApp(ctx, cfg)
	t.Cleanup(func() { _ = app.Shutdown() })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		open := r.URL.Path == "/v2/" || strings.HasPrefix(r.URL.Path, "/v2/open/")
		if !open && (name != "me" || password != "geheim") {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		app.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
