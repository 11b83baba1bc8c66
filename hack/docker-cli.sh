#!/bin/sh
# Builds the docker CLI as $1, for the test that runs dev as its plugin. The docker CLI is no Go module: its sources are given the requirements that
# they carry in vendor.mod.
set -eu

out=$1
version=v29.9.3
# vendor.mod names a version of swarmkit that was never published as such.
swarmkit=v2.1.3-0.20260828175525-ad0357aedfca

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
sources=$(GO111MODULE=on GOFLAGS=-mod=mod go mod download -json "github.com/docker/cli@$version+incompatible" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
cp -r "$sources/." "$work/cli"
chmod -R u+w "$work/cli"
cd "$work/cli"
cp vendor.mod go.mod
cp vendor.sum go.sum
rm -rf vendor
go mod edit -require="github.com/moby/swarmkit/v2@$swarmkit"
CGO_ENABLED=0 GOFLAGS=-mod=mod go build -trimpath -ldflags "-s -w -X github.com/docker/cli/cli/version.Version=${version#v}" -o "$out" ./cmd/docker
