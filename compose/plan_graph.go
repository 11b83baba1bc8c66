// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
)

// step is an operation of a plan in the making. Steps name each other by pointer, so that a planner may make them in whatever order it finds out
// about them; [graph.ops] numbers them so that what is needed comes first.
type step struct {
	Op
	rank, seq int // where it stands among those that could come next
	needs     []*step
	after     []*step
	fallback  *step
	target    *step        // makes what Op.Ref names
	takes     string       // container name that must be free
	waiters   []string     // services that an await is for
	fill      func() error // completes Op once every step has its ID
}

// need adds steps that must succeed first; nil stands for what is there already.
func (s *step) need(others ...*step) {
	for _, o := range others {
		if o != nil && o != s && !slices.Contains(s.needs, o) {
			s.needs = append(s.needs, o)
		}
	}
}

// follow adds steps that must end first, in whatever way.
func (s *step) follow(others ...*step) {
	for _, o := range others {
		if o != nil && o != s && !slices.Contains(s.after, o) {
			s.after = append(s.after, o)
		}
	}
}

// ref names what a step acts on: the container that a step of this plan makes or, without one, what existed before.
func (s *step) on(made *step, id string) *step {
	if made == nil {
		s.Ref = Ref{ID: id}
		return s
	}
	s.target = made
	s.need(made)
	return s
}

// graph collects the steps of one plan. Steps added with a lower rank get lower IDs where their needs allow it.
type graph struct {
	steps []*step
	rank  int
}

func (g *graph) add(op Op, needs ...*step) *step {
	s := &step{Op: op, rank: g.rank, seq: len(g.steps)}
	s.need(needs...)
	g.steps = append(g.steps, s)
	return s
}

// ops numbers the steps and completes them. The error of a circle names the operations in it; it would be a mistake of the planner.
func (g *graph) ops() ([]Op, error) {
	ordered := g.sorted()
	if len(ordered) < len(g.steps) {
		return nil, g.circle(ordered)
	}
	for i, s := range ordered {
		s.ID = i + 1
	}
	ops := make([]Op, len(ordered))
	for i, s := range ordered {
		s.Needs, s.After = ids(s.needs), ids(s.after)
		if s.fallback != nil {
			s.Fallback = s.fallback.ID
		}
		if s.target != nil {
			s.Ref = Ref{Op: s.target.ID}
		}
		if s.fill != nil {
			if err := s.fill(); err != nil {
				return nil, err
			}
		}
		ops[i] = s.Op
	}
	return ops, nil
}

// before lists all steps that must end before s.
func (s *step) before() []*step {
	all := slices.Concat(s.needs, s.after)
	if s.fallback != nil {
		all = append(all, s.fallback)
	}
	return all
}

// sorted puts what is needed first and keeps rank and sequence otherwise. Steps in a circle are missing from it.
func (g *graph) sorted() []*step {
	open := make(map[*step]int, len(g.steps))
	next := make(map[*step][]*step, len(g.steps))
	var ready stepHeap
	for _, s := range g.steps {
		before := s.before()
		open[s] = len(before)
		for _, b := range before {
			next[b] = append(next[b], s)
		}
		if len(before) == 0 {
			ready = append(ready, s)
		}
	}
	heap.Init(&ready)
	ordered := make([]*step, 0, len(g.steps))
	for ready.Len() > 0 {
		s := heap.Pop(&ready).(*step)
		ordered = append(ordered, s)
		for _, n := range next[s] {
			if open[n]--; open[n] == 0 {
				heap.Push(&ready, n)
			}
		}
	}
	return ordered
}

func (g *graph) circle(ordered []*step) error {
	var names []string
	for _, s := range g.steps {
		if !slices.Contains(ordered, s) {
			names = append(names, s.String())
		}
	}
	return fmt.Errorf("plan: operations wait for each other: %s", strings.Join(names, "; "))
}

func ids(steps []*step) []int {
	var list []int
	for _, s := range steps {
		list = append(list, s.ID)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

type stepHeap []*step

func (h stepHeap) Len() int      { return len(h) }
func (h stepHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h stepHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].rank, h[j].rank), cmp.Compare(h[i].seq, h[j].seq)) < 0
}

func (h *stepHeap) Push(s any) { *h = append(*h, s.(*step)) }

func (h *stepHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	*h = (*h)[:last]
	return s
}
