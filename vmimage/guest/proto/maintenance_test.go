// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bytes"
	"testing"
)

func TestReportRoundTrip(t *testing.T) {
	want := Report{Step: "comparing", Done: true, Trimmed: 5, Files: 7, Bytes: 9, Least: 11, Error: "no"}
	disk, err := EncodeReport(want)
	if err != nil || len(disk) != ReportSize {
		t.Fatalf("%d bytes, %v", len(disk), err)
	}
	if got, err := DecodeReport(bytes.NewReader(disk)); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	disk[60] ^= 1
	if _, err := DecodeReport(bytes.NewReader(disk)); err == nil {
		t.Error("an altered report was taken")
	}
	if _, err := DecodeReport(bytes.NewReader(make([]byte, ReportSize))); err == nil {
		t.Error("a blank disk was taken for a report")
	}
}

func TestMaintenanceInSeed(t *testing.T) {
	for want, m := range map[string]Maintenance{
		"maintenance \"x\" is not known":                  {Task: "x"},
		"the size to shrink to is not a number of blocks": {Task: TaskShrink, Bytes: 4097},
		"": {Task: TaskShrink, Bytes: 1 << 30},
	} {
		_, err := EncodeSeed(Seed{Maintenance: &m})
		got := ""
		if err != nil {
			got = err.Error()[len("encode seed: "):]
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", m, got, want)
		}
	}
}
