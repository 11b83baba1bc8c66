// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
)

// mayBeID reports whether a reference may be an image's ID, whole or shortened, rather than a name.
func mayBeID(ref string) bool {
	hex := strings.TrimPrefix(ref, "sha256:")
	return len(hex) >= 4 && len(hex) <= 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// wanted is one image as a project names it.
type wanted struct {
	text string
	// named is nil for an ID.
	named  reference.Named
	digest string // of name@digest
}

func newWanted(text string) (wanted, error) {
	ref, err := reference.ParseAnyReference(text)
	if err != nil {
		return wanted{}, fmt.Errorf("image %q: %w", text, err)
	}
	w := wanted{text: text}
	named, ok := ref.(reference.Named)
	if !ok {
		return w, nil
	}
	w.named = reference.TagNameOnly(named)
	if d, ok := ref.(reference.Digested); ok {
		w.digest = d.Digest().String()
	}
	return w, nil
}

// pattern is the list filter that finds the image. The engine matches it with the familiar form of a name; an image wanted by its digest
// may be there under a tag, so that any of the repository is looked at.
func (w wanted) pattern() string {
	if w.digest != "" {
		return reference.FamiliarName(w.named)
	}
	return reference.FamiliarString(w.named)
}

// is reports whether s is the wanted image. With a digest only the repository and the digest count, as when the engine resolves it.
func (w wanted) is(s *image.Summary) bool {
	if w.named == nil {
		return false
	}
	if w.digest == "" {
		return slices.Contains(s.RepoTags, reference.FamiliarString(w.named))
	}
	name := reference.FamiliarName(w.named)
	if slices.Contains(s.RepoDigests, name+"@"+w.digest) {
		return true
	}
	return s.ID == w.digest && slices.ContainsFunc(s.RepoTags, func(tag string) bool {
		return strings.HasPrefix(tag, name+":") || strings.HasPrefix(tag, name+"@")
	})
}

// listImages finds images by the references as the project writes them, in one list call; those that may be IDs cost one more call each
// where no name matches.
func listImages(ctx context.Context, api *client.Client, refs []string) (map[string]compose.Image, error) {
	all := make([]wanted, 0, len(refs))
	filters := client.Filters{}
	for _, text := range refs {
		w, err := newWanted(text)
		if err != nil {
			return nil, err
		}
		if w.named != nil {
			filters.Add("reference", w.pattern())
		}
		all = append(all, w)
	}
	var list client.ImageListResult
	if len(filters) > 0 {
		var err error
		if list, err = api.ImageList(ctx, client.ImageListOptions{Filters: filters, Manifests: true}); err != nil {
			return nil, err
		}
	}
	out := make(map[string]compose.Image, len(refs))
	for _, w := range all {
		if i := slices.IndexFunc(list.Items, func(s image.Summary) bool { return w.is(&s) }); i >= 0 {
			out[w.text] = newImage(&list.Items[i])
			continue
		}
		if !mayBeID(w.text) {
			continue
		}
		if found, err := inspectImage(ctx, api, w.text); err == nil {
			out[w.text] = found
		} else if !gone(err) {
			return nil, err
		}
	}
	return out, nil
}

// imagesBeside finds images by references of which only the ID is needed. It asks for those that the containers do not tell.
func (c *Client) imagesBeside(ctx context.Context, api *client.Client, refs []string, listed []compose.Container) (map[string]compose.Image, error) {
	told := map[string]compose.Image{}
	if f := c.facts.Load(); f != nil && f.moby {
		told = toldImages(refs, listed)
	}
	ask := slices.DeleteFunc(slices.Clone(refs), func(ref string) bool { _, ok := told[ref]; return ok })
	if len(ask) == 0 {
		return told, nil
	}
	found, err := listImages(ctx, api, ask)
	maps.Copy(told, found)
	return told, err
}

// toldImages are the images that listed containers tell. For each container dockerd looks up the reference that it was made from, and gives the
// image's ID in its place if that leads to another image now or to none, or not to one for the engine's own platform. (Other engines
// repeat the reference as it was.) A reference that is the ID itself is not looked up, so it tells nothing; nor does a container whose label
// does not agree with the engine on what it was made from.
func toldImages(refs []string, listed []compose.Container) map[string]compose.Image {
	told := map[string]compose.Image{}
	for _, c := range listed {
		label := c.Labels[compose.LabelImage]
		if c.ImageID != "" && c.Image != c.ImageID && (label == "" || label == c.ImageID) && slices.Contains(refs, c.Image) {
			told[c.Image] = compose.Image{ID: c.ImageID}
		}
	}
	return told
}

// newImage converts a listed image.
func newImage(s *image.Summary) compose.Image {
	return compose.Image{ID: s.ID, Digests: s.RepoDigests, Platform: listedPlatform(s.Manifests)}
}

// listedPlatform is the platform of an image whose local content has only one; empty if it has several or the engine's store does not say.
func listedPlatform(manifests []image.ManifestSummary) string {
	found := ""
	for _, m := range manifests {
		if m.Kind != image.ManifestKindImage || !m.Available || m.ImageData == nil {
			continue
		}
		if found != "" {
			return ""
		}
		found = formatPlatform(m.ImageData.Platform)
	}
	return found
}

// inspectImage asks for one image.
func inspectImage(ctx context.Context, api *client.Client, ref string) (compose.Image, error) {
	r, err := api.ImageInspect(ctx, ref)
	if err != nil {
		return compose.Image{}, err
	}
	return compose.Image{
		ID: r.ID, Digests: r.RepoDigests, Tagged: r.Metadata.LastTagTime,
		Platform: formatPlatform(ocispec.Platform{OS: r.Os, Architecture: r.Architecture, Variant: r.Variant}),
	}, nil
}

// addTagTimes fills in when images were last tagged, which lists do not tell.
func addTagTimes(ctx context.Context, api *client.Client, refs []string, images map[string]compose.Image) error {
	found := make([]compose.Image, len(refs))
	g, ctx := errgroup.WithContext(ctx)
	for i, ref := range refs {
		if have, ok := images[ref]; !ok || !have.Tagged.IsZero() {
			continue
		}
		g.Go(func() (err error) {
			found[i], err = inspectImage(ctx, api, ref)
			if gone(err) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, ref := range refs {
		if have, ok := images[ref]; ok && found[i].ID == have.ID {
			have.Tagged = found[i].Tagged
			images[ref] = have
		}
	}
	return nil
}

// formatPlatform writes os/arch[/variant] in its usual form; empty if unknown.
func formatPlatform(p ocispec.Platform) string {
	if p.OS == "" || p.Architecture == "" || p.OS == "unknown" {
		return ""
	}
	return platforms.Format(platforms.Normalize(p))
}

// parsePlatform reads os/arch[/variant] as users write it; nil if s is empty.
func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("platform %q: want os/architecture[/variant], for example linux/arm64", s)
	}
	return &p, nil
}
