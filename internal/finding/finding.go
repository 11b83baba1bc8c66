// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package finding is what the doctors of engines and machines have in common.
//
// A [Check] looks at one thing and returns a [Finding] for each fault: what is wrong, the cause, and the fix. Some findings carry a repair, which is
// done only when asked for. Checks change nothing and bound their own time; a repair looks again, under whatever lock there is, before it acts.
package finding

import (
	"context"
	"sync"
	"time"
)

// Severity says how much a finding matters.
type Severity string

// The severities.
const (
	// Broken: something does not work.
	Broken Severity = "error"
	// Doubtful: something may not work, or not for long.
	Doubtful Severity = "warning"
)

// Finding is one fault.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// What is wrong, in a phrase; Cause is why, Fix what to do or type.
	What  string `json:"finding"`
	Cause string `json:"cause"`
	Fix   string `json:"fix"`
	// Repair mends it, doing what RepairText says; nil where it is for the user to do.
	Repair     func(context.Context) error `json:"-"`
	RepairText string                      `json:"repair,omitempty"`
}

// Check looks at one thing.
type Check struct {
	Name string
	// About says what is looked at, in a phrase.
	About string
	Run   func(context.Context) []Finding
}

// checkTimeout bounds each check.
const checkTimeout = 20 * time.Second

// Report is what a check found.
type Report struct {
	Check    Check
	Findings []Finding
}

// Run carries out checks side by side and returns their reports in the same order.
func Run(ctx context.Context, checks []Check) []Report {
	reports := make([]Report, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			found := c.Run(ctx)
			for n := range found {
				found[n].Check = c.Name
			}
			reports[i] = Report{c, found}
		})
	}
	wg.Wait()
	return reports
}
