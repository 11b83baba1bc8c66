// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"os/exec"
	"testing"
)

// A file with several names has as many as on the host, also after folders were listed that had been known before.
func TestNamesAreCounted(t *testing.T) {
	p := followed(t, nil)
	script := `cd "$0"; mkdir sub; echo old >plain; ls -l . sub >/dev/null
		count() { ls -l . sub >/dev/null; stat -c '%n %h' plain "$@"; }
		ln plain sub/.new; mv sub/.new sub/hard; count sub/hard
		rm sub/hard; count
		ln plain third; mv third sub/third; rm plain; mv sub/third plain; count`
	out, err := exec.Command("sh", "-c", script, p.target).CombinedOutput()
	if want := "plain 2\nsub/hard 2\nplain 1\nplain 1\n"; err != nil || string(out) != want {
		t.Errorf("%v: %q instead of %q", err, out, want)
	}
}
