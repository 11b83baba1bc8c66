// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// networkState is what the plan makes of one network of the project.
type networkState struct {
	name    string
	id      string // of the existing network that is used; empty: it is made
	missing bool   // it was not there at all
	reason  reason // why it is replaced; empty: it is not
	made    *step
}

// volumeState is what the plan makes of one volume of the project.
type volumeState struct {
	name     string
	missing  bool
	replaced bool
	content  string // what it is filled with after it was made; empty: nothing
	made     *step
}

// wantedKeys lists the networks or volumes that the plan must see to: with services named, those that the planned ones use.
func wantedKeys[T any](pl *planner, all map[string]T, used func(types.ServiceConfig) []string) []string {
	if len(pl.o.Services) == 0 && !pl.idle {
		return slices.Sorted(maps.Keys(all))
	}
	wanted := map[string]bool{}
	for _, sv := range pl.planned() {
		for _, key := range used(sv.ServiceConfig) {
			if _, ok := all[key]; ok {
				wanted[key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(wanted))
}

// networksOf lists the keys of the networks a service is attached to.
func networksOf(s types.ServiceConfig) []string {
	if s.NetworkMode != "" {
		return nil
	}
	return slices.Sorted(maps.Keys(s.Networks))
}

// volumesOf lists the keys of the named volumes a service mounts.
func volumesOf(s types.ServiceConfig) []string {
	var keys []string
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume && v.Source != "" {
			keys = append(keys, v.Source)
		}
	}
	return keys
}

func (pl *planner) planNetworks() error {
	for _, key := range wantedKeys(pl, pl.p.Networks, networksOf) {
		state, err := pl.networkState(key)
		if err != nil {
			return err
		}
		pl.networks[key] = state
	}
	return nil
}

// networkState compares a network of the project with what is there.
func (pl *planner) networkState(key string) (*networkState, error) {
	n := pl.p.Networks[key]
	there, ok := pl.have.Networks[n.Name]
	state := &networkState{name: n.Name, id: there.ID, missing: !ok}
	switch {
	case bool(n.External) && !ok:
		return nil, &planError{
			fmt.Sprintf("network %q is external, and there is none of that name", n.Name),
			fmt.Sprintf("docker network create %s, or remove `external: true` to have it made", n.Name),
		}
	case bool(n.External) && there.Duplicates > 0:
		return nil, &planError{
			fmt.Sprintf("network %q is external, and there are %d networks of that name", n.Name, there.Duplicates+1),
			"give the network's ID as its name",
		}
	case bool(n.External), !ok:
		return state, nil
	}
	owner, owned := there.Labels[LabelProject]
	switch {
	case !owned:
		pl.warn("", "network %s was there before and was not made by Compose; it is used as it is. Say `external: true` if it is meant", n.Name)
	case owner != pl.p.Name:
		pl.warn("", "network %s belongs to project %s; it is used as it is. Say `external: true` if it is meant", n.Name, owner)
	default:
		err := pl.compareNetwork(key, n, there, state)
		return state, err
	}
	return state, nil
}

func (pl *planner) compareNetwork(key string, n types.NetworkConfig, there Network, state *networkState) error {
	hash, err := NetworkHash(n)
	if err != nil {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	was := there.Labels[LabelConfigHash]
	switch {
	case pl.o.NoRecreate:
	case there.Labels[LabelNetwork] != key:
		state.reason.text = fmt.Sprintf("it was the project's network %q, and is %q now", there.Labels[LabelNetwork], key)
	case was != "" && was != hash:
		state.reason.text = "its configuration changed"
	}
	return nil
}

// checkReplaced refuses to replace a network that containers run on, or a volume that they mount, if the plan does not touch them.
func (pl *planner) checkReplaced() error {
	for _, c := range pl.have.Containers {
		what := ""
		if name := pl.replacedNetwork(c); name != "" && running(c) {
			what = fmt.Sprintf("network %q", name)
		} else if name := pl.replacedVolume(c); name != "" {
			what = fmt.Sprintf("volume %q", name)
		}
		var hint string
		switch orphan := !defined(pl.p, c.Service()); {
		case what == "":
			continue
		case !managed(c) || c.OneOff():
			hint = "docker rm --force " + c.Name
		case orphan && !pl.o.RemoveOrphans:
			hint = "dev up --remove-orphans"
		case !orphan && pl.services[c.Service()] == nil:
			hint = "dev up"
		default:
			continue
		}
		return &planError{fmt.Sprintf("%s changed and must be recreated, and container %q, which stays, uses it", what, c.Name), hint}
	}
	return nil
}

// replacedNetwork names a network that the container is attached to and that the plan replaces.
func (pl *planner) replacedNetwork(c Container) string {
	for _, key := range slices.Sorted(maps.Keys(pl.networks)) {
		n := pl.networks[key]
		if _, attached := c.Networks[n.name]; attached && n.reason.text != "" {
			return n.name
		}
	}
	return ""
}

func (pl *planner) assessNetworksReplaced(sv *service, c Container) reason {
	if pl.done(sv, c) {
		return reason{} // it needs no network any more
	}
	if name := pl.replacedNetwork(c); name != "" {
		return reason{text: fmt.Sprintf("network %s is recreated", name)}
	}
	return reason{}
}

// assessNetworks: a container must be attached to the very networks that are there, not to ones that were there once.
func (pl *planner) assessNetworks(sv *service, c Container) reason {
	if pl.done(sv, c) || c.State == StateCreated && len(c.Networks) == 0 { // the latter: engines do not tell before the first start
		return reason{}
	}
	for _, key := range networksOf(sv.ServiceConfig) {
		n, ok := pl.networks[key]
		if !ok {
			continue
		}
		id, attached := c.Networks[n.name]
		switch {
		case n.missing:
			return reason{text: fmt.Sprintf("network %s is made anew", n.name)}
		case attached && (id == "" || id == n.id), slices.Contains(slices.Collect(maps.Values(c.Networks)), n.id):
		case attached:
			return reason{text: fmt.Sprintf("network %s was replaced", n.name)}
		default:
			return reason{text: fmt.Sprintf("not attached to network %s", n.name)}
		}
	}
	return reason{}
}

func (pl *planner) planVolumes() error {
	keys := slices.AppendSeq(wantedKeys(pl, pl.p.Volumes, volumesOf), maps.Keys(pl.o.RestoreVolumes))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		state, err := pl.volumeState(key)
		if err != nil {
			return err
		}
		pl.volumes[key] = state
	}
	return pl.checkReplaced()
}

// volumeState compares a volume of the project with what is there. A volume holds data: it is replaced only if the user says so.
func (pl *planner) volumeState(key string) (*volumeState, error) {
	v := pl.p.Volumes[key]
	there, ok := pl.have.Volumes[v.Name]
	state := &volumeState{name: v.Name, missing: !ok}
	if content, restored := pl.o.RestoreVolumes[key]; restored {
		return state, pl.restore(key, content, state)
	}
	if bool(v.External) && !ok {
		return nil, &planError{
			fmt.Sprintf("volume %q is external, and there is none of that name", v.Name),
			fmt.Sprintf("docker volume create %s, or remove `external: true` to have it made", v.Name),
		}
	}
	if bool(v.External) || !ok {
		return state, nil
	}
	owner, owned := there.Labels[LabelProject]
	switch {
	case !owned:
		pl.warn("", "volume %s was there before and was not made by Compose; it is used as it is. Say `external: true` if it is meant", v.Name)
		return state, nil
	case owner != pl.p.Name:
		pl.warn("", "volume %s belongs to project %s; it is used as it is. Say `external: true` if it is meant", v.Name, owner)
		return state, nil
	}
	hash, err := VolumeHash(v)
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", v.Name, err)
	}
	if was := there.Labels[LabelConfigHash]; was == "" || was == hash {
		return state, nil
	}
	pl.result.DivergedVolumes = append(pl.result.DivergedVolumes, key)
	if state.replaced = slices.Contains(pl.o.RecreateVolumes, key); !state.replaced {
		pl.warn("", "volume %s was made with another configuration than it has now; it is kept with its data", v.Name)
	}
	return state, nil
}

// replacedVolume names a volume that the container mounts and that the plan replaces.
func (pl *planner) replacedVolume(c Container) string {
	for _, key := range slices.Sorted(maps.Keys(pl.volumes)) {
		if v := pl.volumes[key]; v.replaced && mountsVolume(c, v.name) {
			return v.name
		}
	}
	return ""
}

func (pl *planner) assessVolumesReplaced(_ *service, c Container) reason {
	if name := pl.replacedVolume(c); name != "" {
		return reason{text: fmt.Sprintf("volume %s is recreated", name)}
	}
	return reason{}
}

func mountsVolume(c Container, name string) bool {
	return slices.ContainsFunc(c.Mounts, func(m Mount) bool { return m.Type == types.VolumeTypeVolume && m.Name == name })
}

func (pl *planner) assessVolumes(sv *service, c Container) reason {
	for _, key := range volumesOf(sv.ServiceConfig) {
		if v, ok := pl.volumes[key]; ok && !mountsVolume(c, v.name) {
			return reason{text: fmt.Sprintf("volume %s is not mounted", v.name)}
		}
	}
	return reason{}
}

// planOrphans warns of containers of services the project no longer has, or removes them.
func (pl *planner) planOrphans() error {
	if len(pl.orphans) == 0 {
		return nil
	}
	if !pl.o.RemoveOrphans {
		if !pl.o.IgnoreOrphans {
			var names []string
			for _, c := range pl.orphans {
				names = append(names, c.Name)
			}
			pl.warn("", "orphan containers, of services this project does not have: %s. Remove them with --remove-orphans", strings.Join(names, ", "))
		}
		return nil
	}
	pl.rank = rankOrphans
	for _, c := range pl.orphans {
		pl.freed[c.Name] = pl.discard(c, types.ServiceConfig{}, discardOptions{timeout: pl.o.Timeout, why: "orphan"})
	}
	return nil
}

// emitNetworks makes networks; a replaced one is removed first, once the containers on it have stopped.
func (pl *planner) emitNetworks() error {
	for _, key := range slices.Sorted(maps.Keys(pl.networks)) {
		n := pl.networks[key]
		if !n.missing && n.reason.text == "" {
			continue
		}
		spec, err := NewNetworkSpec(pl.p, key)
		if err != nil {
			return err
		}
		pl.rank = rankNetworks
		target, why := "network "+n.name, "not there"
		var removed *step
		if n.reason.text != "" {
			why = "recreated"
			removed = pl.add(Op{Kind: OpRemoveNetwork, Target: target, Reason: n.reason.text, Ref: Ref{ID: n.id}})
			removed.need(pl.clearNetwork(n.name)...)
		}
		pl.rank = rankNetworks
		n.made = pl.add(Op{Kind: OpCreateNetwork, Target: target, Reason: why, Network: &spec}, removed)
	}
	return nil
}

// clearNetwork stops, or has removed, every container that runs on a network.
func (pl *planner) clearNetwork(name string) []*step {
	var steps []*step
	for _, sv := range pl.planned() {
		for _, r := range sv.replicas {
			if r.runs() && attached(*r.old, name) {
				steps = append(steps, pl.stop(sv, r))
			}
		}
		for _, l := range sv.surplus {
			if running(l.Container) && attached(l.Container, name) {
				steps = append(steps, pl.removeLeftover(sv, l))
			}
		}
	}
	for _, c := range pl.orphans {
		if attached(c, name) {
			steps = append(steps, pl.freed[c.Name])
		}
	}
	return steps
}

func attached(c Container, network string) bool {
	_, ok := c.Networks[network]
	return ok
}

// emitVolumes makes volumes; a replaced one is removed first, once its containers are gone.
func (pl *planner) emitVolumes() error {
	for _, key := range slices.Sorted(maps.Keys(pl.volumes)) {
		v := pl.volumes[key]
		if !v.missing && !v.replaced {
			continue
		}
		spec, err := NewVolumeSpec(pl.p, key)
		if err != nil {
			return err
		}
		pl.rank = rankVolumes
		target, why, gone := "volume "+v.name, "not there", "its configuration changed"
		if v.content != "" {
			gone = "its content is restored"
		}
		var removed *step
		if v.replaced {
			why = "recreated"
			removed = pl.add(Op{
				Kind: OpRemoveVolume, Target: target, Reason: gone, Destructive: true, Ref: Ref{ID: v.name},
			})
			removed.need(pl.clearVolume(v.name)...)
		}
		pl.rank = rankVolumes
		v.made = pl.add(Op{Kind: OpCreateVolume, Target: target, Reason: why, Volume: &spec}, removed)
		if v.content != "" {
			v.made = pl.add(Op{Kind: OpFillVolume, Target: target, Reason: "restored", Ref: Ref{ID: v.name}, Content: v.content}, v.made)
		}
	}
	return nil
}

// clearVolume removes every container of the project that mounts a volume.
func (pl *planner) clearVolume(name string) []*step {
	var steps []*step
	for _, sv := range pl.planned() {
		for _, r := range sv.replicas {
			if r.old != nil && mountsVolume(*r.old, name) {
				steps = append(steps, pl.removeOld(sv, r))
			}
		}
		for _, l := range sv.surplus {
			if mountsVolume(l.Container, name) {
				steps = append(steps, pl.removeLeftover(sv, l))
			}
		}
	}
	for _, c := range pl.orphans {
		if mountsVolume(c, name) {
			steps = append(steps, pl.freed[c.Name])
		}
	}
	return steps
}
