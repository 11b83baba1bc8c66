// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
)

// resourceLoaders are those that fetch remote Compose files, and one that refuses what none of them takes.
func (o LoadOptions) resourceLoaders() []loader.ResourceLoader {
	return append(append([]loader.ResourceLoader{}, o.Remotes...), remoteRefuser{})
}

// fetch replaces the given files that are remote by local copies. The folder of the first becomes the project's, unless one was asked for; the
// project keeps the name of the folder that it would have had, so that it does not change with each commit.
func (r *reading) fetch(ctx context.Context, files []string) error {
	first := r.o.ProjectDir == ""
	for i, file := range files {
		if file == "-" || !isRemote(file) {
			continue
		}
		local, err := r.fetchOne(ctx, file)
		if err != nil {
			return err
		}
		files[i] = local
		if first {
			r.projectDir, first = filepath.Dir(local), false
		}
	}
	return nil
}

func (r *reading) fetchOne(ctx context.Context, file string) (string, error) {
	for _, l := range r.o.resourceLoaders() {
		if l.Accept(file) {
			return l.Load(ctx, file)
		}
	}
	return "", &remoteError{file}
}

// remoteRefuser stands behind the loaders of remote Compose files, and says that there is none for an address.
type remoteRefuser struct{}

// Accept takes whatever is an address.
func (remoteRefuser) Accept(path string) bool { return isRemote(path) }

// Dir is never asked for.
func (remoteRefuser) Dir(path string) string { return path }

// Load refuses.
func (remoteRefuser) Load(_ context.Context, path string) (string, error) {
	return "", &remoteError{path}
}

// remoteError is an address that no Compose file can be fetched from.
type remoteError struct{ path string }

func (e *remoteError) Error() string {
	return fmt.Sprintf("read compose file %q: nothing can be fetched from such an address", e.path)
}

// Hint says what to do instead.
func (e *remoteError) Hint() string {
	return "name a git repository (https://host/repository.git#branch:folder) or an artifact in a registry (oci://host/repository:tag); " +
		"a single file: fetch it with curl, and name it with -f"
}

func isRemote(path string) bool {
	for _, prefix := range []string{"oci://", "https://", "http://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
