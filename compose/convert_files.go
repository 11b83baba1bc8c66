// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/mount"
)

// Configs and secrets reach a container in one of two ways. One that is a file on the host, without an owner or mode, is mounted
// read-only, as docker compose does: changes to the file are seen. Any other is copied into the container before it starts.

// fileRef is one config or secret of a service, with its definition.
type fileRef struct {
	kind  string // "configs" or "secrets", as the sections are called
	index int
	use   types.FileReferenceConfig
	def   types.FileObjectConfig
}

const (
	configsDir      = "/"
	secretsDir      = "/run/secrets/"
	defaultFileMode = 0o444
)

func (r fileRef) field(name string) string { return indexed(r.kind, r.index, name) }

// target is the file's place in the container.
func (r fileRef) target() string {
	dir := configsDir
	if r.kind == "secrets" {
		dir = secretsDir
	}
	switch t := r.use.Target; {
	case t == "":
		return dir + r.use.Source
	case path.IsAbs(t), paths.IsWindowsAbs(t):
		return t
	default:
		return dir + t
	}
}

// bound reports whether the file is mounted, not copied.
func (r fileRef) bound() bool {
	return r.def.File != "" && r.use.UID == "" && r.use.GID == "" && r.use.Mode == nil
}

// fileRefs lists the secrets and configs of a service.
func (c conversion) fileRefs() ([]fileRef, error) {
	var refs []fileRef
	for i, use := range c.s.Secrets {
		def, ok := c.p.Secrets[use.Source]
		refs = append(refs, fileRef{"secrets", i, types.FileReferenceConfig(use), types.FileObjectConfig(def)})
		if !ok {
			return nil, c.failf(fmt.Sprintf("secrets[%d]", i), "secret %q is not defined", use.Source)
		}
	}
	for i, use := range c.s.Configs {
		def, ok := c.p.Configs[use.Source]
		refs = append(refs, fileRef{"configs", i, types.FileReferenceConfig(use), types.FileObjectConfig(def)})
		if !ok {
			return nil, c.failf(fmt.Sprintf("configs[%d]", i), "config %q is not defined", use.Source)
		}
	}
	for _, r := range refs {
		if err := r.refuse(); err != nil {
			return nil, err
		}
	}
	return refs, nil
}

// refuse returns an error for a definition that only a cluster can honour.
func (r fileRef) refuse() error {
	field := r.kind + "." + r.use.Source
	switch {
	case bool(r.def.External):
		return &FieldError{Field: field + ".external", Err: errors.New("the engine keeps no " + r.kind + " of its own; give it a file, an environment variable or content")}
	case r.def.Driver != "":
		return &FieldError{Field: field + ".driver", Err: errors.New("the engine has no drivers for " + r.kind)}
	case r.def.TemplateDriver != "":
		return &FieldError{Field: field + ".template_driver", Err: errors.New("the engine has no template drivers")}
	}
	return nil
}

// boundFiles lists the mounts of the configs and secrets that are files.
func (c conversion) boundFiles() ([]mount.Mount, error) {
	refs, err := c.fileRefs()
	if err != nil {
		return nil, err
	}
	var mounts []mount.Mount
	for _, r := range refs {
		if r.bound() {
			mounts = append(mounts, mount.Mount{
				Type:        mount.TypeBind,
				Source:      c.hostPath(r.def.File),
				Target:      r.target(),
				ReadOnly:    true,
				BindOptions: &mount.BindOptions{},
			})
		}
	}
	return mounts, nil
}

// files lists the configs and secrets to be copied.
func (c conversion) files() ([]File, error) {
	refs, err := c.fileRefs()
	if err != nil {
		return nil, err
	}
	var files []File
	for _, r := range refs {
		if r.bound() || slices.ContainsFunc(c.s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == r.target() }) {
			continue
		}
		f, err := c.file(r)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// file reads one config or secret that is to be copied.
func (c conversion) file(r fileRef) (File, error) {
	f := File{Path: r.target(), Mode: defaultFileMode}
	if err := c.reachable(r); err != nil {
		return f, err
	}
	var err error
	if f.Content, err = c.content(r); err != nil {
		return f, err
	}
	if r.use.Mode != nil {
		f.Mode = uint32(*r.use.Mode)
	}
	if f.UID, err = c.id(r.field("uid"), r.use.UID); err != nil {
		return f, err
	}
	f.GID, err = c.id(r.field("gid"), r.use.GID)
	return f, err
}

func (c conversion) id(field, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, c.failf(field, "%q is not a numeric ID", text)
	}
	return int(id), nil
}

// content is what the file holds.
func (c conversion) content(r fileRef) ([]byte, error) {
	switch {
	case r.def.File != "":
		b, err := os.ReadFile(c.hostPath(r.def.File))
		if err != nil {
			return nil, &FieldError{Field: r.kind + "." + r.use.Source + ".file", Err: err}
		}
		return b, nil
	case r.def.Content != "":
		return []byte(r.def.Content), nil
	case r.def.Environment != "":
		value, ok := c.p.Environment[r.def.Environment]
		if !ok {
			return nil, &FieldError{
				Field: r.kind + "." + r.use.Source + ".environment",
				Err:   fmt.Errorf("the variable %q is not set", r.def.Environment),
			}
		}
		return []byte(value), nil
	}
	return nil, nil
}

// reachable returns an error if a file copied to its place could not be written, or not be seen once the container runs.
func (c conversion) reachable(r fileRef) error {
	inVolume := false
	for _, v := range c.s.Volumes {
		if !within(v.Target, r.target()) {
			continue
		}
		if v.Type == types.VolumeTypeTmpfs {
			return c.failf(r.field("target"), "%s would be hidden by the tmpfs at %s", r.target(), v.Target)
		}
		inVolume = inVolume || !v.ReadOnly
	}
	for _, t := range c.s.Tmpfs {
		if dir, _, _ := strings.Cut(t, ":"); within(dir, r.target()) {
			return c.failf(r.field("target"), "%s would be hidden by the tmpfs at %s", r.target(), dir)
		}
	}
	if c.s.ReadOnly && !inVolume {
		return c.failf(r.field("source"), "%s cannot be written since the service is read_only; give %q a file without uid, gid and mode, which is mounted", r.target(), r.use.Source)
	}
	return nil
}

// within reports whether file is dir or lies in it.
func within(dir, file string) bool {
	rest, ok := strings.CutPrefix(file, path.Clean(dir))
	return ok && (rest == "" || rest[0] == '/' || path.Clean(dir) == "/")
}

// FilesLabel is the value of [LabelFiles] for a container made now: a short digest of each thing that the configuration hash does
// not cover, by name, empty if there is nothing. [DiffFiles] tells two of them apart.
func FilesLabel(p *types.Project, s types.ServiceConfig) (string, error) {
	label, err := filesLabel(conversion{p: p, s: s})
	return label, located(p, err)
}

func filesLabel(c conversion) (string, error) {
	refs, err := c.fileRefs()
	if err != nil {
		return "", err
	}
	var parts []string
	for _, r := range refs {
		content := []byte("file " + r.def.File)
		if !r.bound() {
			if content, err = c.content(r); err != nil {
				return "", err
			}
		}
		parts = append(parts, r.kind+"."+r.use.Source+"="+hashBytes(content)[:16])
	}
	for _, option := range c.s.SecurityOpt {
		if file, ok := seccompFile(option); ok {
			profile, err := readSeccomp(c.p.RelativePath(file))
			if err != nil {
				return "", c.fail("security_opt", err)
			}
			parts = append(parts, "security_opt.seccomp="+hashBytes(bytes.TrimSpace(profile))[:16])
		}
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ","), nil
}

// DiffFiles lists what differs between the files a container was made with and the [FilesLabel] wanted now. It is empty for a container that
// docker compose made: what it was given is not known.
func DiffFiles(old Container, label string) []Change {
	before, ok := old.Labels[LabelFiles]
	if !ok && old.Labels[LabelServiceConfig] == "" {
		return nil
	}
	a, b := labelParts(before), labelParts(label)
	var changes []Change
	for _, name := range unionKeys(a, b) {
		if a[name] == b[name] {
			continue
		}
		change := Change{Field: name + ".content"}
		change.Old, change.OldSet = digestText(name, a)
		change.New, change.NewSet = digestText(name, b)
		changes = append(changes, change)
	}
	return changes
}

func labelParts(label string) map[string]string {
	parts := map[string]string{}
	for part := range strings.SplitSeq(label, ",") {
		if name, digest, ok := strings.Cut(part, "="); ok {
			parts[name] = digest
		}
	}
	return parts
}

func digestText(name string, parts map[string]string) (string, bool) {
	digest, ok := parts[name]
	switch {
	case !ok:
		return "", false
	case strings.HasPrefix(name, "secrets."):
		return masked, true
	}
	return "sha256:" + digest, true
}
