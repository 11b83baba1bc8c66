// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package reclaim

import (
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const mebibyte = 1 << 20

// What a guest keeps beyond its need, and how fast it is taken the rest.
const (
	// leastReserve and mostReserve bound the memory above what is used, for caches and for what starts next. Between them it is a quarter of what is used.
	leastReserve = 256 * mebibyte
	mostReserve  = 2048 * mebibyte
	// tightReserve is for a host that is short of memory itself.
	tightReserve = 128 * mebibyte
	// leastStep is what is worth a change at all, and the least that is taken at once; more is an eighth of the guest's memory. Taken slowly, the guest lets
	// go of the caches that it used last of all.
	leastStep = 64 * mebibyte
	// calmLooks is how often in a row a guest has to be found idle before memory is taken.
	calmLooks = 2
	// idleLoad is the average of waiting processes, for each processor, below which a guest is idle.
	idleLoad = 0.5
	// soreFor is how long nothing is taken from a guest that missed memory.
	soreFor = 3 * time.Minute
)

// How long it is until the next look: soon while memory is being taken, seldom otherwise. A guest of whose memory the host has some is watched meanwhile, and
// says at once when it misses it.
const (
	lookSoon = 10 * time.Second
	lookLate = time.Minute
	// echo is how long after memory was taken a guest may miss it for that alone: letting go of caches takes it time. breath is how long it is left alone then.
	echo   = 15 * time.Second
	breath = 5 * time.Second
)

// memoryView is what is known of a guest's memory at a moment. Sizes are in bytes.
type memoryView struct {
	now     time.Time
	total   int64 // what the guest was started with
	has     int64 // what it has now: the rest is the host's
	cpus    int
	guest   proto.Memory
	short   bool // its programs wait for memory
	tight   bool // the host is short of memory
	working bool // the machine is busy with something of ours
}

// memoryPlan is what to do about it: how many bytes the guest shall have, how long it is left alone, and how long it is watched after that.
type memoryPlan struct {
	target      int64
	rest, watch time.Duration
}

// reclaimer decides how much memory a guest keeps. It only remembers; what it decides depends on nothing else.
type reclaimer struct {
	calm int       // looks in a row that found the guest idle
	sore time.Time // until then nothing is taken
	took time.Time // when memory was taken last
}

// need is what programs and the kernel use, and cannot do without.
func (v memoryView) need() int64 {
	taken := v.total - v.has
	return max(v.total-v.guest.Available-taken, 0)
}

// reserve is what the guest keeps beyond its need.
func (v memoryView) reserve() int64 {
	if v.tight {
		return tightReserve
	}
	return min(max(v.need()/4, leastReserve), mostReserve)
}

// idle: nothing in the guest wants a processor or a disk for long.
func (v memoryView) idle() bool {
	return !v.working && v.guest.Load < idleLoad*float64(max(v.cpus, 1))
}

// plan decides. A guest that misses memory gets all of it at once; one that comes near to that gets twice the reserve; one that is idle gives up what
// is beyond its need and reserve, step by step.
func (r *reclaimer) plan(v memoryView) memoryPlan {
	target, wait := r.decide(v)
	switch {
	case target < v.has:
		r.took = v.now
		return memoryPlan{target: target, watch: wait}
	case target == v.total: // there is nothing to miss
		return memoryPlan{target: target, rest: wait}
	case v.short && target == v.has:
		return memoryPlan{target: target, rest: breath, watch: lookSoon}
	}
	return memoryPlan{target: target, watch: wait}
}

func (r *reclaimer) decide(v memoryView) (target int64, wait time.Duration) {
	wanted := min(v.need()+v.reserve(), v.total)
	switch {
	case v.short && v.guest.Available > 2*v.reserve(): // a container at a limit of its own, or caches that are being let go of
		r.calm = 0
		return v.has, lookSoon
	case v.short && v.now.Sub(r.took) < echo:
		r.calm, r.took = 0, time.Time{}
		return v.has, lookSoon
	case v.short:
		r.calm, r.sore = 0, v.now.Add(soreFor)
		return v.total, lookLate
	case v.has < v.total && v.guest.Available < v.reserve()/2:
		r.calm = 0
		return min(v.need()+2*v.reserve(), v.total), lookSoon
	case !v.idle():
		r.calm = 0
		return v.has, lookLate
	case v.has-wanted < leastStep || v.now.Before(r.sore):
		return v.has, lookLate
	}
	if r.calm++; r.calm < calmLooks {
		return v.has, lookSoon
	}
	return max(v.has-max(leastStep, v.total/8), wanted), lookSoon
}
