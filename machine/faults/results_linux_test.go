// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// resultsFile says of each fault how it went when it was made to happen last.
const resultsFile = "testdata/results.json"

// result is how a fault went the last time that it was asked to be noted.
type result struct {
	// Date is a day, Commit the one of the tree that was tested, Seconds how long it took.
	Date    string `json:"date"`
	Commit  string `json:"commit"`
	Seconds int    `json:"seconds"`
	// Failed says that something did not hold.
	Failed bool `json:"failed,omitempty"`
}

func (r result) String() string {
	if r.Commit == "" {
		return "not yet"
	}
	text := fmt.Sprintf("%s, %v, `%s`", r.Date, time.Duration(r.Seconds)*time.Second, r.Commit)
	if r.Failed {
		text = "**failed** " + text
	}
	return text
}

// readResults reads what is noted, by the names of the faults.
func readResults(t *testing.T) map[string]result {
	t.Helper()
	data, err := os.ReadFile(resultsFile)
	list := map[string]result{}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// record notes how a fault went, here and in the document, where UPDATE=1 asks for it. One that was skipped says nothing.
func record(t *testing.T, name string, began time.Time) {
	t.Helper()
	if os.Getenv("UPDATE") == "" || t.Skipped() {
		return
	}
	commit, err := exec.Command("git", "rev-parse", "--short=10", "HEAD").Output()
	if err != nil {
		t.Fatalf("ask git for the commit: %v", err)
	}
	list := readResults(t)
	list[name] = result{
		Date: began.UTC().Format(time.DateOnly), Commit: strings.TrimSpace(string(commit)),
		Seconds: int(time.Since(began).Seconds()), Failed: t.Failed(),
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = os.WriteFile(resultsFile, append(data, '\n'), 0o644)
	}
	if err == nil {
		err = os.WriteFile(document, []byte(render(table(), list)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
