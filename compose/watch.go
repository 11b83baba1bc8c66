// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// WatchRule says what a change below a path on the host means for a service: one entry of develop.watch, resolved.
type WatchRule struct {
	Service string
	// Path is the absolute path on the host that is watched: a folder with all below it, or a file.
	Path   string
	Action types.WatchAction
	// Target is the absolute path in the container that Path goes to; empty unless the action syncs.
	Target string
	// Exec is what sync+exec runs.
	Exec types.ServiceHook
	// InitialSync copies all of Path when watching begins, and into every new container.
	InitialSync bool
	// Inferred tells that the rule is not in the Compose file.
	Inferred bool

	// Ignored and Included are patterns as in .dockerignore, relative to Path, as they are shown.
	Ignored, Included []string

	ignores, includes []matcher
}

// WatchChange is a path on the host that is not as it was. A folder that is new or gone is reported itself, and everything new in it too;
// of a folder that is gone, what was in it need not be.
type WatchChange struct {
	Path    string
	Removed bool
	Dir     bool // it is a folder, or was one
}

// WatchCopy is one file or folder that goes into a container; of a folder only itself, not what is in it.
type WatchCopy struct {
	From string // on the host
	To   string // in the container
	Dir  bool
}

// WatchBatch is what a set of changes means for one service. It is carried out in the order of its fields.
type WatchBatch struct {
	Service string
	// Rebuild builds the service's image and replaces its containers.
	Rebuild bool
	// Remove are the paths in the containers to delete, none below another; Copy what to put there, folders before what is in them.
	Remove []string
	Copy   []WatchCopy
	// Exec are the commands to run in each container, Restart restarts it.
	Exec    []types.ServiceHook
	Restart bool
	// Causes are the changed paths on the host behind it, sorted.
	Causes []string
}

// Sync reports whether the batch changes files of containers.
func (b WatchBatch) Sync() bool { return len(b.Remove)+len(b.Copy) > 0 }

// syncs reports whether an action copies files.
func syncs(a types.WatchAction) bool {
	return a == types.WatchActionSync || a == types.WatchActionSyncRestart || a == types.WatchActionSyncExec
}

// WatchRules resolves the develop.watch sections of the named services, of all if none are named, and returns what should be told of them. It reads the
// .dockerignore files of their builds. A service that is named and has no rules is an error, as is a project without any.
func WatchRules(p *types.Project, services []string) ([]WatchRule, []Warning, error) {
	var rules []WatchRule
	var warnings []Warning
	names := services
	if len(names) == 0 {
		names = p.ServiceNames()
	}
	for _, name := range names {
		s := p.Services[name]
		if s.Develop == nil || len(s.Develop.Watch) == 0 {
			if slices.Contains(services, name) {
				return nil, nil, &planError{fmt.Sprintf("service %q has no develop.watch section", name), "dev watch --infer " + name + " proposes one"}
			}
			continue
		}
		base, err := ignoreOf(s)
		if err != nil {
			return nil, nil, located(p, &FieldError{Service: name, Field: "build", Err: err})
		}
		for i := range s.Develop.Watch {
			r, err := newWatchRule(s, i, base)
			if err != nil {
				return nil, nil, located(p, err)
			}
			if by := boundBy(s, r); by != "" {
				warnings = append(warnings, Warning{
					Service: name, Field: fmt.Sprintf("develop.watch[%d].path", i), Text: "left out: it is mounted into the container already, by " + by,
				})
				continue
			}
			rules = append(rules, r)
		}
	}
	if len(rules) == 0 && len(warnings) == 0 {
		return nil, nil, &planError{"no service has a develop.watch section", "dev watch --infer proposes rules from the Dockerfiles' COPY lines"}
	}
	return rules, warnings, nil
}

// newWatchRule resolves entry i of a service.
func newWatchRule(s types.ServiceConfig, i int, base []matcher) (WatchRule, error) {
	t := s.Develop.Watch[i]
	fail := func(field, text string) error {
		return &FieldError{Service: s.Name, Field: fmt.Sprintf("develop.watch[%d].%s", i, field), Err: errors.New(text)}
	}
	r := WatchRule{
		Service: s.Name, Path: filepath.Clean(t.Path), Action: t.Action, Exec: t.Exec, InitialSync: t.InitialSync,
		Ignored: t.Ignore, Included: t.Include,
	}
	switch {
	case t.Action == types.WatchActionRebuild && s.Build == nil:
		return r, fail("action", "the service has no build section to rebuild")
	case t.Action == types.WatchActionSyncExec && len(t.Exec.Command) == 0:
		return r, fail("exec.command", "missing: sync+exec needs a command to run")
	}
	if syncs(t.Action) {
		if !path.IsAbs(t.Target) {
			return r, fail("target", fmt.Sprintf("%q is not an absolute path in the container", t.Target))
		}
		r.Target = t.Target
	}
	return r, r.compile(base)
}

// NewInferredRule makes a rule that is in no file, for the service as [WatchRules] would: of a path on the host, to one in the container unless it is
// empty, for what the patterns include only if there are any.
func NewInferredRule(s types.ServiceConfig, action types.WatchAction, from, to string, include []string) (WatchRule, error) {
	base, err := ignoreOf(s)
	if err != nil {
		return WatchRule{}, err
	}
	r := WatchRule{Service: s.Name, Path: filepath.Clean(from), Action: action, Target: to, Inferred: true, Included: include}
	return r, r.compile(base)
}

func (r *WatchRule) compile(base []matcher) error {
	r.ignores = slices.Clone(base)
	for _, list := range []struct {
		patterns []string
		to       *[]matcher
	}{{r.Ignored, &r.ignores}, {r.Included, &r.includes}} {
		if len(list.patterns) == 0 {
			continue
		}
		m, err := newMatcher(r.Path, list.patterns)
		if err != nil {
			return &FieldError{Service: r.Service, Field: "develop.watch", Err: err}
		}
		*list.to = append(*list.to, m)
	}
	return nil
}

// boundBy names the bind mount of the service that covers the rule's path, if it would be copied.
func boundBy(s types.ServiceConfig, r WatchRule) string {
	if !syncs(r.Action) {
		return ""
	}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeBind && below(filepath.Clean(v.Source), r.Path) && within(v.Target, r.Target) {
			return v.Source + ":" + v.Target
		}
	}
	return ""
}

// below reports whether a path on the host is dir or lies in it.
func below(dir, name string) bool {
	rest, ok := strings.CutPrefix(name, dir)
	return ok && (rest == "" || rest[0] == filepath.Separator || strings.HasSuffix(dir, string(filepath.Separator)))
}

// relative is the path of name, which is dir or lies in it, from there.
func relative(dir, name string) string {
	rel := strings.TrimLeft(strings.TrimPrefix(name, dir), string(filepath.Separator))
	if rel == "" {
		return "."
	}
	return rel
}

// Covers reports whether the rule is about a path on the host: it lies below the rule's, is included and not ignored.
func (r WatchRule) Covers(name string) bool {
	if !below(r.Path, name) || fleeting(relative(r.Path, name)) || slices.ContainsFunc(r.ignores, func(m matcher) bool { return m.match(name) }) {
		return false
	}
	return len(r.includes) == 0 || name == r.Path || slices.ContainsFunc(r.includes, func(m matcher) bool { return m.match(name) })
}

// Prunes reports whether the rule needs nothing below a folder on the host, so that it need not be watched.
func (r WatchRule) Prunes(dir string) bool {
	if below(dir, r.Path) {
		return false
	}
	return !below(r.Path, dir) || fleeting(relative(r.Path, dir)) || slices.ContainsFunc(r.ignores, func(m matcher) bool { return !m.exceptions && m.match(dir) })
}

// place is where a path on the host goes in the container.
func (r WatchRule) place(c WatchChange) string {
	rel := relative(r.Path, c.Path)
	if rel == "." {
		if !c.Dir && strings.HasSuffix(r.Target, "/") {
			return path.Join(r.Target, filepath.Base(c.Path))
		}
		return path.Clean(r.Target)
	}
	return path.Join(r.Target, filepath.ToSlash(rel))
}

// NewWatchPlan says what changes mean, service by service, in the order of the rules. It makes no call; the same input gives the same plan.
func NewWatchPlan(rules []WatchRule, changes []WatchChange) []WatchBatch {
	var order []string
	batches := map[string]*WatchBatch{}
	for _, r := range rules {
		for _, c := range changes {
			if !r.Covers(c.Path) {
				continue
			}
			b := batches[r.Service]
			if b == nil {
				b = &WatchBatch{Service: r.Service}
				batches[r.Service] = b
				order = append(order, r.Service)
			}
			b.take(r, c)
		}
	}
	var plan []WatchBatch
	for _, name := range order {
		if b := batches[name]; b.settle() {
			plan = append(plan, *b)
		}
	}
	return plan
}

// take adds what a change means by one rule.
func (b *WatchBatch) take(r WatchRule, c WatchChange) {
	if c.Dir && !syncs(r.Action) {
		return // what is in it is reported, too
	}
	if syncs(r.Action) {
		switch to := r.place(c); {
		case c.Removed && c.Dir && c.Path == r.Path:
			return // the folder itself is the image's
		case c.Removed:
			b.Remove = append(b.Remove, to)
		case c.Dir && (c.Path == r.Path || len(r.includes) > 0):
			return // the engine makes what folders are needed
		default:
			b.Copy = append(b.Copy, WatchCopy{From: c.Path, To: to, Dir: c.Dir})
		}
	}
	b.Causes = append(b.Causes, c.Path)
	switch r.Action {
	case types.WatchActionRebuild:
		b.Rebuild = true
	case types.WatchActionRestart, types.WatchActionSyncRestart:
		b.Restart = true
	case types.WatchActionSyncExec:
		if !slices.ContainsFunc(b.Exec, func(h types.ServiceHook) bool {
			return slices.Equal(h.Command, r.Exec.Command) && h.User == r.Exec.User
		}) {
			b.Exec = append(b.Exec, r.Exec)
		}
	}
}

// settle sorts, and drops what is said twice. It reports whether anything is left to do.
func (b *WatchBatch) settle() bool {
	slices.Sort(b.Causes)
	b.Causes = slices.Compact(b.Causes)
	slices.SortStableFunc(b.Copy, func(x, y WatchCopy) int { return strings.Compare(x.To, y.To) })
	b.Copy = slices.CompactFunc(b.Copy, func(x, y WatchCopy) bool { return x.To == y.To })
	slices.SortFunc(b.Remove, comparePaths)
	var roots []string
	for _, name := range b.Remove {
		if n := len(roots); n > 0 && within(roots[n-1], name) {
			continue
		}
		if _, copied := slices.BinarySearchFunc(b.Copy, name, func(c WatchCopy, to string) int { return strings.Compare(c.To, to) }); !copied {
			roots = append(roots, name)
		}
	}
	b.Remove = roots
	if b.Rebuild {
		b.Restart = false // the container is a new one
	}
	return b.Rebuild || b.Restart || b.Sync()
}

// comparePaths sorts what is in a folder right behind the folder.
func comparePaths(a, b string) int {
	return cmp.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}
