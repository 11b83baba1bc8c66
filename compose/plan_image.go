// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/platforms"
)

// imageKey tells images apart: one reference may be wanted for two platforms.
type imageKey struct{ name, platform string }

// image is one image that planned services run or mount.
type image struct {
	name string
	id   string // of the local image; empty: none that fits
	made *step  // pulls or builds it
}

// imageIntent is what a service's policy says about its image.
type imageIntent struct {
	pull, build bool // pull and build: build if the pull fails
	reason      string
}

// planImages pulls and builds what the planned services run and mount.
func (pl *planner) planImages() error {
	pl.rank = rankImages
	intents := map[string]imageIntent{}
	for _, sv := range pl.planned() {
		in, err := pl.intent(sv.ServiceConfig)
		if err != nil {
			return err
		}
		intents[sv.Name] = in
		sv.image = pl.imageOf(sv.ServiceConfig)
	}
	if pl.o.ImagesReady {
		return nil
	}
	for _, sv := range pl.planned() {
		if in := intents[sv.Name]; in.pull {
			pl.pullFor(sv, in)
		}
	}
	for _, sv := range pl.planned() {
		if in := intents[sv.Name]; in.build {
			if _, err := pl.build(sv.Name, in.reason, nil); err != nil {
				return err
			}
		}
	}
	for _, sv := range pl.planned() {
		pl.pullMounts(sv)
	}
	return nil
}

// imageOf finds the image that a service runs.
func (pl *planner) imageOf(s types.ServiceConfig) *image {
	return pl.imageNamed(ImageName(pl.p, s), Platform(pl.p, s))
}

func (pl *planner) imageNamed(name, platform string) *image {
	key := imageKey{name, platform}
	im, ok := pl.images[key]
	if !ok {
		im = &image{name: name}
		if local, ok := pl.have.Images[name]; ok && samePlatform(local.Platform, platform) {
			im.id = local.ID
		}
		pl.images[key] = im
	}
	return im
}

// samePlatform reports whether an image of platform have serves one wanted. Unknown and unset platforms match.
func samePlatform(have, want string) bool {
	if have == "" || want == "" {
		return true
	}
	h, errH := platforms.Parse(have)
	w, errW := platforms.Parse(want)
	if errH != nil || errW != nil {
		return have == want
	}
	return platforms.NewMatcher(w).Match(h)
}

// intent applies the service's pull policy, or the one from the command line, to what is there.
func (pl *planner) intent(s types.ServiceConfig) (imageIntent, error) {
	if pl.o.Pull != "" {
		s.PullPolicy = pl.o.Pull
	}
	if pl.o.Build && s.Build != nil {
		s.PullPolicy = types.PullPolicyBuild
	}
	policy, age, err := s.GetPullPolicy()
	if err != nil {
		return imageIntent{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	name := ImageName(pl.p, s)
	missing := pl.imageOf(s).id == ""
	in := imageIntent{reason: "not there", build: missing && s.Build != nil}
	switch policy {
	case types.PullPolicyBuild:
		if in.build = s.Build != nil; !missing {
			in.reason = "pull_policy is build"
			if pl.o.Build {
				in.reason = "build is forced"
			}
		}
	case types.PullPolicyAlways:
		if in.pull = s.Image != ""; !missing {
			in.reason = "pull_policy is always"
		}
	case types.PullPolicyRefresh:
		in.pull = s.Image != "" && (missing || pl.have.Now.After(pl.have.Images[name].Tagged.Add(age)))
		if in.pull && !missing {
			in.reason = "older than " + ageText(age)
		}
	case types.PullPolicyNever:
	default:
		in.pull = s.Image != "" && missing
	}
	if existing, ok := pl.have.Images[name]; ok && missing {
		in.reason = fmt.Sprintf("the local image is for %s", existing.Platform)
	}
	in.build = in.build && !pl.o.NoBuild
	return in, nil
}

// ageText gives a refresh period as it is written in pull_policy.
func ageText(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", days)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// pullFor pulls a service's image, once for all that share it. An image that is built otherwise may fail to be pulled.
func (pl *planner) pullFor(sv *service, in imageIntent) {
	if sv.image.made == nil {
		sv.image.made = pl.pull(sv.Name, sv.image.name, Platform(pl.p, sv.ServiceConfig), in.reason)
		sv.image.made.BestEffort = true
	}
	if !pl.buildable(sv.image.name) {
		sv.image.made.BestEffort = false
	}
}

func (pl *planner) pull(serviceName, ref, platform, why string) *step {
	return pl.add(Op{
		Kind: OpPullImage, Target: "image " + ref, Service: serviceName, Reason: why,
		Image: &ImageSpec{Ref: ref, Platform: platform},
	})
}

// buildable reports whether a planned service builds the image.
func (pl *planner) buildable(name string) bool {
	return !pl.o.NoBuild && slices.ContainsFunc(pl.planned(), func(sv *service) bool {
		return sv.Build != nil && sv.image.name == name
	})
}

// build builds a service's image after those that its build uses. Where the image is pulled first, the build stands in for a pull that fails.
func (pl *planner) build(name, why string, path []string) (*step, error) {
	s := pl.p.AllServices()[name]
	s.Name = name
	if slices.Contains(path, name) {
		return nil, fmt.Errorf("builds use each other's images in a circle: %s", strings.Join(append(path, name), " → "))
	}
	im := pl.imageOf(s)
	if im.made != nil && im.made.Kind == OpBuildImage && im.made.Service == name {
		return im.made, nil
	}
	spec, err := NewBuildSpec(pl.p, s, pl.o.BuildOptions)
	if err != nil {
		return nil, err
	}
	st := pl.add(Op{Kind: OpBuildImage, Target: "image " + im.name, Service: name, Reason: why, Build: &spec})
	for _, used := range BuildNeeds(s) {
		other, ok := pl.p.AllServices()[used]
		if !ok {
			return nil, fmt.Errorf("build of service %q: it uses the image of service %q, which the project does not have", name, used)
		}
		other.Name = used
		in, err := pl.intent(other)
		if err != nil {
			return nil, err
		}
		if !in.build {
			continue
		}
		dep, err := pl.build(used, "the build of "+name+" uses it", append(path, name))
		if err != nil {
			return nil, err
		}
		st.need(dep)
	}
	switch prior := im.made; {
	case prior != nil && prior.Kind == OpPullImage:
		st.fallback = prior
		st.Reason = "in case it cannot be pulled"
	case prior != nil: // another service builds the same image: the last one wins, always the same
		st.need(prior)
	}
	im.made = st
	return st, nil
}

// pullMounts pulls missing images that a service mounts as volumes.
func (pl *planner) pullMounts(sv *service) {
	for _, ref := range imageMounts(sv.ServiceConfig) {
		im := pl.imageNamed(ref, "")
		if im.id == "" && im.made == nil {
			im.made = pl.pull(sv.Name, ref, "", fmt.Sprintf("not there, and %s mounts it", sv.Name))
		}
	}
}

// imageMounts lists the images that a service needs beside its own: those it mounts as volumes, and those of its pre_start hooks.
func imageMounts(s types.ServiceConfig) []string {
	refs := map[string]bool{}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeImage {
			refs[v.Source] = true
		}
	}
	for _, hook := range s.PreStart {
		if hook.Image != "" && hook.Image != s.Image {
			refs[hook.Image] = true
		}
	}
	return slices.Sorted(maps.Keys(refs))
}

// missingImage is the error of a container that must be made from an image that is not there and that nothing in the plan brings.
func (pl *planner) missingImage(sv *service) error {
	text := fmt.Sprintf("service %q: image %q is not there", sv.Name, sv.image.name)
	if sv.Build != nil {
		return &planError{text + ", and nothing is built now", "dev build " + sv.Name}
	}
	return &planError{text + ", and its pull policy forbids to pull it", "dev pull --policy missing " + sv.Name}
}

// noteProvisional records a service whose containers are kept now but may not be once its image has been pulled or built.
func (pl *planner) noteProvisional(sv *service) {
	if sv.image.made == nil || pl.o.NoRecreate {
		return
	}
	if slices.ContainsFunc(sv.replicas, func(r *replica) bool { return !r.created() }) {
		pl.result.Provisional = append(pl.result.Provisional, sv.Name)
	}
}
