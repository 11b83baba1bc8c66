// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package buildkit

import (
	"context"
	"encoding/json"
	"errors"
	"maps"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"

	"github.com/seed71221737/dev/engine/build/wire"
)

// What BuildKit's Dockerfile frontend calls its checks (moby/buildkit frontend/subrequests/lint).
const (
	lintRequest = "frontend.lint"
	// subrequestsCap tells a frontend given by `# syntax=` that it is asked for something else than a build.
	subrequestsCap = "moby.buildkit.frontend.subrequests"
)

// check has the frontend look the Dockerfile over. It closes status.
func check(ctx context.Context, conn *client.Client, opt *client.SolveOpt, status chan *client.SolveStatus) (*wire.Result, error) {
	attrs := maps.Clone(opt.FrontendAttrs)
	attrs["requestid"] = lintRequest
	if caps := attrs["frontend.caps"]; caps != "" {
		attrs["frontend.caps"] = caps + "," + subrequestsCap
	} else {
		attrs["frontend.caps"] = subrequestsCap
	}
	request := gateway.SolveRequest{Frontend: opt.Frontend, FrontendOpt: attrs}
	o := *opt
	o.Frontend, o.Exports, o.CacheExports = "", nil, nil
	found := &wire.Result{}
	_, err := conn.Build(ctx, o, "dev", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		r, err := c.Solve(ctx, request)
		if err != nil {
			return nil, err
		}
		text, ok := r.Metadata["result.txt"]
		if !ok {
			return nil, errors.New("the frontend that the Dockerfile names has no checks")
		}
		found.Report, found.Flawed = string(text)+buildError(r.Metadata["result.json"]), string(r.Metadata["result.statuscode"]) != "0"
		return r, nil
	}, status)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// buildError is why the Dockerfile cannot be built at all, which the text leaves out.
func buildError(data []byte) string {
	var found struct {
		Error struct {
			Message string `json:"message"`
		} `json:"buildError"`
	}
	if json.Unmarshal(data, &found) != nil || found.Error.Message == "" {
		return ""
	}
	return "\nERROR: " + found.Error.Message + "\n"
}
