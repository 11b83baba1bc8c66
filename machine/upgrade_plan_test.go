// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

func TestCheckUpgrade(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name    string
		needs   int
		image   ImageBrief
		err     string
		warning string
	}{
		{"as it is", 1, ImageBrief{schema: 1, protocol: proto.Version}, "", ""},
		{"newer data layout", 1, ImageBrief{schema: 3, protocol: proto.Version}, "", ""},
		{"knows just enough", 2, ImageBrief{schema: 2, protocol: proto.Version}, "", ""},
		{"data too new", 2, ImageBrief{schema: 1, protocol: proto.Version}, "the machine's data has layout 2, which a newer image made, and this one knows layouts up to 1", ""},
		{"guest too old", 1, ImageBrief{schema: 1, protocol: proto.MinVersion - 1}, "it speaks control protocol 0 and this dev speaks", ""},
		{"guest newer", 1, ImageBrief{schema: 1, protocol: proto.Version + 1}, "", "newer than this dev's"},
	} {
		c.image.Digest = digest
		warnings, err := checkUpgrade("box", c.needs, c.image)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v; want %q", c.name, err, c.err)
		}
		if got := strings.Join(warnings, ";"); (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
			t.Errorf("%s: warnings %q; want %q", c.name, got, c.warning)
		}
	}
}

// TestResume: for each point at which a change can be cut off, what comes next.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name   string
		j      journal
		next   step
		giveUp bool
		text   string
	}{
		{"restore, nothing changed", journal{Kind: kindRestore, Step: stepPrepare}, "", true, "a restore was interrupted before it changed anything: it is given up"},
		{"restore, decided", journal{Kind: kindRestore, Step: stepSwitch}, stepSwitch, false, "a restore was interrupted: it is finished"},
		{"shrink, nothing changed", journal{Kind: kindShrink, Step: stepPrepare}, "", true, "a shrink was interrupted before"},
		{"shrink, decided", journal{Kind: kindShrink, Step: stepSwitch}, stepSwitch, false, "a shrink was interrupted: it is finished"},
		{"upgrade, nothing changed", journal{Kind: kindUpgrade, Step: stepPrepare}, "", true, "an upgrade was interrupted before it changed anything"},
		{"upgrade, first try", journal{Kind: kindUpgrade, Step: stepTry, Tries: 1}, stepTry, false, "tried again"},
		{"upgrade, not yet tried", journal{Kind: kindUpgrade, Step: stepTry}, stepTry, false, "tried again"},
		{"upgrade, tried too often", journal{Kind: kindUpgrade, Step: stepTry, Tries: 2}, stepBack, false, "interrupted 2 times: the machine goes back"},
		{"upgrade, on the way back", journal{Kind: kindUpgrade, Step: stepBack}, stepBack, false, "on its way back"},
		{"upgrade, proven", journal{Kind: kindUpgrade, Step: stepProven}, stepProven, false, "all but its end was done"},
	} {
		next, giveUp, text := c.j.resume()
		if next != c.next || giveUp != c.giveUp || !strings.Contains(text, c.text) {
			t.Errorf("%s: %q, %v, %q", c.name, next, giveUp, text)
		}
	}
}

func TestChooseWayBack(t *testing.T) {
	for _, c := range []struct {
		knows, layout int
		snapshot      string
		want          wayBack
	}{
		{1, 1, "", wayBack{}},
		{2, 1, "s", wayBack{}},
		{1, 2, "s", wayBack{disk: true}},
		{1, 2, "", wayBack{stuck: true}},
	} {
		if got := chooseWayBack(ImageBrief{schema: c.knows}, c.layout, c.snapshot); got != c.want {
			t.Errorf("knows %d, layout %d, snapshot %q: %+v", c.knows, c.layout, c.snapshot, got)
		}
	}
}

// TestReadJournal: what no dev wrote is refused and stays, and what an earlier one wrote, in testdata, is read.
func TestReadJournal(t *testing.T) {
	digest := strings.Repeat("0", 64)
	for text, want := range map[string]string{
		`{`:                            "unexpected end",
		`{"version":1}`:                `change "", which this dev does not know`,
		`{"version":9}`:                "its version is 9 and this dev reads up to 2",
		`{"version":1,"kind":"dance"}`: `change "dance"`,
		`{"version":1,"kind":"upgrade","step":"try"}`:                                                        "is no image's digest",
		`{"version":1,"kind":"upgrade","step":"switch","old":"` + digest + `","new":"` + digest + `"}`:       `step "switch" is none of`,
		`{"version":1,"kind":"restore","step":"try"}`:                                                        `step "try" is none of`,
		`{"version":1,"kind":"restore","step":"switch"}`:                                                     "does not say what to put in place",
		`{"version":1,"kind":"upgrade","step":"prepare","old":"../../../etc/passwd","new":"` + digest + `"}`: "is no image's digest",
	} {
		dir := Dir(t.TempDir())
		if err := os.WriteFile(dir.Journal(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var bad *JournalError
		if _, err := readJournal(dir); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", "journal", "v?-*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dir := Dir(t.TempDir())
		if err := os.WriteFile(dir.Journal(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := readJournal(dir)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := j.write(dir); err != nil {
			t.Fatal(err)
		}
		// What an older one wrote is written in the version that its contents need now.
		want := regexp.MustCompile(`"version": \d`).ReplaceAllString(string(data), fmt.Sprintf(`"version": %d`, j.Version))
		if again, err := os.ReadFile(dir.Journal()); err != nil || string(again) != want {
			t.Errorf("%s is written as\n%s%v", file, again, err)
		}
	}
}

// TestComplaint: an image is blamed for what is its own, and for nothing that was wrong before.
func TestComplaint(t *testing.T) {
	problem := func(code string) hostagent.Problem { return hostagent.Problem{Code: code, Text: "text of " + code} }
	for _, c := range []struct {
		problems []hostagent.Problem
		ailing   bool
		want     string
	}{
		{nil, false, ""},
		{[]hostagent.Problem{problem("port-taken"), problem("share-unavailable"), problem("guest-warning")}, false, ""},
		{[]hostagent.Problem{problem("port-taken"), problem("guest")}, false, "text of guest"},
		{[]hostagent.Problem{problem("guest")}, true, ""},
		{[]hostagent.Problem{problem("guest"), problem("engine-silent")}, true, "text of engine-silent"},
		{[]hostagent.Problem{problem("guest-silent"), problem("link-lost")}, false, "text of guest-silent; text of link-lost"},
	} {
		got := ""
		if err := complaint(c.problems, c.ailing); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.problems, got, c.want)
		}
	}
}
