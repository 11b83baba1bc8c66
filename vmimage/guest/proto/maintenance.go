// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Tasks of a Maintenance.
const (
	// TaskTrim checks the data disk and gives what is free on it back to the host.
	TaskTrim = "trim"
	// TaskShrink makes the file system of the data disk, which is a copy, as small as Bytes says, and compares all that is on it with the disk it was
	// copied from, which is attached under the name OriginalDisk.
	TaskShrink = "shrink"
)

// OriginalDisk is the serial number of the disk that the data disk is a copy of.
const OriginalDisk = "original"

// Maintenance is work on the data disk while nothing else runs in the machine. How it goes is told on the report disk.
type Maintenance struct {
	Task  string `json:"task"`
	Bytes int64  `json:"bytes,omitempty"`
}

func (m *Maintenance) validate() error {
	switch {
	case m.Task == TaskTrim:
	case m.Task == TaskShrink && m.Bytes > 0 && m.Bytes%4096 == 0:
	case m.Task == TaskShrink:
		return errors.New("the size to shrink to is not a number of blocks")
	default:
		return fmt.Errorf("maintenance %q is not known", m.Task)
	}
	return nil
}

// ReportSize is the size of a report disk in bytes.
const ReportSize = seedRound

// ReportMark is what a report disk begins with.
const ReportMark = "DEV-REPORT"

// Report is what a machine tells of its maintenance, on a small raw disk of its own that the host has made. Step is empty until the machine has begun.
type Report struct {
	Step string `json:"step,omitempty"` // for people: what it does now
	Done bool   `json:"done,omitempty"`
	// Error says why it came to nothing. Least is set where the size is the reason: how many bytes are needed at least.
	Error string `json:"error,omitempty"`
	Least int64  `json:"least,omitempty"`
	// Trimmed is how many bytes were given back; Files and Bytes how much was compared.
	Trimmed int64 `json:"trimmed,omitempty"`
	Files   int64 `json:"files,omitempty"`
	Bytes   int64 `json:"bytes,omitempty"`
}

// EncodeReport renders a report as the contents of its disk.
func EncodeReport(r Report) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	if len(body) > ReportSize/2 {
		return nil, errors.New("encode report: it is too long")
	}
	return frame(ReportMark, body), nil
}

// DecodeReport reads a report disk. One that is just being written is an error, and is right a moment later.
func DecodeReport(r io.ReaderAt) (Report, error) {
	var report Report
	body, ok, err := unframe(r, ReportMark)
	if err == nil && !ok {
		err = errors.New("it is no report")
	}
	if err == nil {
		err = json.Unmarshal(body, &report)
	}
	if err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	return report, nil
}
