// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"io"
	"slices"
	"strings"
)

// BaseImages lists the images that a Dockerfile builds on, in the order in which they appear: those of FROM, COPY --from and RUN --mount that are neither
// stages of its own nor among the named contexts. args are the build's arguments. Names whose variables are only known during the build are left out.
func BaseImages(dockerfile io.Reader, args map[string]string, contexts []string) ([]string, error) {
	stages, err := parseDockerfile(dockerfile, args)
	if err != nil {
		return nil, err
	}
	var found, names []string
	add := func(image string) {
		own := slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, image) })
		number := strings.Trim(image, "0123456789") == ""
		if !own && !number && image != "scratch" && !strings.HasSuffix(image, ":") && !slices.Contains(contexts, image) && !slices.Contains(found, image) {
			found = append(found, image)
		}
	}
	for _, s := range stages {
		add(s.from)
		if s.name != "" {
			names = append(names, s.name)
		}
		for _, image := range s.needs {
			add(image)
		}
	}
	return found, nil
}
