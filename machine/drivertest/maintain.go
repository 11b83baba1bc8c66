// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"errors"
	"os"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// How a stand-in does maintenance, besides StandInGood.
const (
	StandInFull  = "full"  // what is on the disk does not fit
	StandInDiffs = "diffs" // a file is not the same
	StandInStops = "stops" // ends in the middle
)

// stepTime is how long a stand-in works at a step: long enough for most looks to see it.
const stepTime = 200 * time.Millisecond

// maintains says whether the VM was started for maintenance.
func maintains(args []string) bool { return option(args, "if=none,id=report", "file=") != "" }

// maintain plays the guest that looks after its disk.
func maintain(how string, args []string) error {
	seedFile, err := os.Open(option(args, "if=none,id=seed", "file="))
	if err != nil {
		return err
	}
	seed, err := proto.DecodeSeed(seedFile)
	if err := errors.Join(err, seedFile.Close()); err != nil {
		return err
	}
	if seed.Maintenance == nil {
		return errors.New("there is a report disk and nothing to do")
	}
	report := option(args, "if=none,id=report", "file=")
	steps := []string{"checking the disk", "giving back what is free"}
	if seed.Maintenance.Task == proto.TaskShrink {
		steps = []string{"checking the copy", "making the copy smaller", "checking the smaller copy", "comparing all files"}
	}
	for i, step := range steps {
		if err := tell(report, proto.Report{Step: step}); err != nil {
			return err
		}
		time.Sleep(stepTime)
		if how == StandInStops && i == 1 {
			return nil
		}
	}
	end := proto.Report{Step: "done", Done: true, Files: 3, Bytes: 4 << 20, Trimmed: 5}
	switch how {
	case StandInFull:
		end = proto.Report{Step: "done", Error: "the data does not fit", Least: 700 << 20}
	case StandInDiffs:
		end = proto.Report{Step: "done", Error: `compare "/mnt/original/x": its contents differ`}
	}
	return tell(report, end)
}

func tell(file string, r proto.Report) error {
	data, err := proto.EncodeReport(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}
