// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// mounts converts everything mounted into the container: volumes, the volumes of the container it replaces, tmpfs, and the configs and
// secrets that are files. Each place in the container has one mount: volumes win over inherited ones, and both over configs and secrets.
func (c conversion) mounts(host *container.HostConfig) error {
	for _, t := range c.s.Tmpfs {
		if host.Tmpfs == nil {
			host.Tmpfs = map[string]string{}
		}
		target, options, _ := strings.Cut(t, ":")
		host.Tmpfs[target] = options
	}
	taken := map[string]bool{}
	inherited := c.inherited()
	for i, v := range c.s.Volumes {
		if taken[v.Target] = true; isAnonymous(v) {
			v.Source = inherited[v.Target]
		}
		bind, m, err := c.volume(i, v)
		if err != nil {
			return err
		}
		if bind != "" {
			host.Binds = append(host.Binds, bind)
		} else {
			host.Mounts = append(host.Mounts, m)
		}
	}
	for _, target := range slices.Sorted(maps.Keys(inherited)) {
		if _, tmpfs := host.Tmpfs[target]; !taken[target] && !tmpfs {
			host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: inherited[target], Target: target})
			taken[target] = true
		}
	}
	bound, err := c.boundFiles()
	if err != nil {
		return err
	}
	for _, m := range bound {
		if !taken[m.Target] {
			host.Mounts = append(host.Mounts, m)
			taken[m.Target] = true
		}
	}
	return nil
}

// inherited maps places in the container to the volumes kept from the one that it replaces.
func (c conversion) inherited() map[string]string {
	volumes := map[string]string{}
	for _, m := range c.in.Inherit {
		if m.Type == types.VolumeTypeVolume && m.Name != "" {
			volumes[m.Destination] = m.Name
		}
	}
	return volumes
}

func isAnonymous(v types.ServiceVolumeConfig) bool {
	return v.Type == types.VolumeTypeVolume && v.Source == ""
}

// volume converts one entry of volumes: to the short form of a bind where that can say it, as docker compose does, else to a mount.
func (c conversion) volume(i int, v types.ServiceVolumeConfig) (bind string, m mount.Mount, err error) {
	m = mount.Mount{
		Type:        mount.Type(v.Type),
		Source:      v.Source,
		Target:      v.Target,
		ReadOnly:    v.ReadOnly,
		Consistency: mount.Consistency(v.Consistency),
	}
	switch v.Type {
	case types.VolumeTypeBind:
		m.Source = c.hostPath(v.Source)
		m.BindOptions, err = c.bindOptions(i, v.Bind)
		if err == nil && !needsMount(v, m.Source) {
			bind = bindString(m.Source, v)
		}
	case types.VolumeTypeVolume:
		named, known := c.p.Volumes[v.Source]
		if known {
			m.Source = named.Name
		}
		m.VolumeOptions = volumeOptions(v.Volume)
		if known && !needsMount(v, m.Source) {
			bind = bindString(m.Source, v)
		}
	case types.VolumeTypeTmpfs:
		m.TmpfsOptions = tmpfsOptions(v.Tmpfs)
	case types.VolumeTypeImage:
		if v.Image != nil {
			m.ImageOptions = &mount.ImageOptions{Subpath: v.Image.SubPath}
		}
	case types.VolumeTypeCluster:
		m.ClusterOptions = &mount.ClusterOptions{}
	case types.VolumeTypeNamedPipe:
		err = c.failf(indexed("volumes", i, "type"), "named pipes exist on Windows engines only")
	default:
		err = c.failf(indexed("volumes", i, "type"), "%q is not a type of mount", v.Type)
	}
	return bind, m, err
}

// hostPath makes a path absolute that the loader left alone.
func (c conversion) hostPath(source string) string {
	if filepath.IsAbs(source) || path.IsAbs(source) || paths.IsWindowsAbs(source) {
		return source
	}
	return filepath.Join(c.p.WorkingDir, source)
}

// needsMount reports whether the short form cannot express the mount.
func needsMount(v types.ServiceVolumeConfig, source string) bool {
	if b := v.Bind; v.Type == types.VolumeTypeBind && b != nil && (!bool(b.CreateHostPath) || b.Propagation != "" || b.Recursive != "") {
		return true
	}
	if o := v.Volume; v.Type == types.VolumeTypeVolume && o != nil && (len(o.Labels) > 0 || o.Subpath != "" || o.NoCopy) {
		return true
	}
	return strings.Contains(v.Target, ":") || strings.Contains(source, ":") && !paths.IsWindowsAbs(source)
}

// bindString is SOURCE:TARGET:OPTIONS.
func bindString(source string, v types.ServiceVolumeConfig) string {
	options := "rw"
	if v.ReadOnly {
		options = "ro"
	}
	if v.Bind != nil && v.Bind.SELinux != "" {
		options += "," + v.Bind.SELinux
	}
	return fmt.Sprintf("%s:%s:%s", source, v.Target, options)
}

func (c conversion) bindOptions(i int, bind *types.ServiceVolumeBind) (*mount.BindOptions, error) {
	if bind == nil {
		return &mount.BindOptions{CreateMountpoint: true}, nil
	}
	o := &mount.BindOptions{
		Propagation:            mount.Propagation(bind.Propagation),
		CreateMountpoint:       bool(bind.CreateHostPath),
		NonRecursive:           bind.Recursive == "disabled",
		ReadOnlyNonRecursive:   bind.Recursive == "writable",
		ReadOnlyForceRecursive: bind.Recursive == "readonly",
	}
	if bind.SELinux != "" && (!o.CreateMountpoint || bind.Propagation != "" || bind.Recursive != "") {
		return nil, c.failf(indexed("volumes", i, "bind.selinux"), "the engine takes no SELinux label together with create_host_path: false, propagation or recursive")
	}
	return o, nil
}

func volumeOptions(o *types.ServiceVolumeVolume) *mount.VolumeOptions {
	if o == nil {
		return nil
	}
	return &mount.VolumeOptions{NoCopy: o.NoCopy, Subpath: o.Subpath, Labels: o.Labels}
}

func tmpfsOptions(o *types.ServiceVolumeTmpfs) *mount.TmpfsOptions {
	if o == nil {
		return nil
	}
	return &mount.TmpfsOptions{SizeBytes: int64(o.Size), Mode: os.FileMode(o.Mode)}
}

// anonymousName is what the engine calls a volume that was given no name.
var anonymousName = lazyregexp.New(`^[0-9a-f]{64}$`)

// AnonymousVolumes lists the volumes of a container that its successor keeps: those without a name of their own, whether the service or
// its image asked for them. Left out are those that the service asked for when the container was made and does not any more, and
// those in whose place it mounts something else now.
func AnonymousVolumes(old Container, s types.ServiceConfig) []Mount {
	wasAsked := map[string]bool{}
	if before, err := DecodeServiceConfig(old.Labels[LabelServiceConfig]); err == nil {
		for _, v := range before.Volumes {
			wasAsked[v.Target] = true
		}
	}
	now := map[string]types.ServiceVolumeConfig{}
	for _, v := range s.Volumes {
		now[v.Target] = v
	}
	var keep []Mount
	for _, m := range old.Mounts {
		if m.Type != types.VolumeTypeVolume || !anonymousName.MatchString(m.Name) {
			continue
		}
		if v, ok := now[m.Destination]; ok && isAnonymous(v) || !ok && !wasAsked[m.Destination] {
			keep = append(keep, m)
		}
	}
	return keep
}

// NewVolumeSpec converts the project's volume key to what the engine needs to create it.
func NewVolumeSpec(p *types.Project, key string) (VolumeSpec, error) {
	v, ok := p.Volumes[key]
	if !ok {
		return VolumeSpec{}, fmt.Errorf("no volume %q in project %q", key, p.Name)
	}
	if v.External {
		return VolumeSpec{}, fmt.Errorf("volume %q is external: it is not ours to create", key)
	}
	hash, err := VolumeHash(v)
	if err != nil {
		return VolumeSpec{}, err
	}
	labels := resourceLabels(p, v.Labels)
	labels[LabelVolume], labels[LabelConfigHash] = key, hash
	return VolumeSpec{volume.CreateRequest{Name: v.Name, Driver: v.Driver, DriverOpts: v.DriverOpts, Labels: labels}}, nil
}
