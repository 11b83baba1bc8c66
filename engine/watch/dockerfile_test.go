// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"strings"
	"testing"
)

func TestReadInstructions(t *testing.T) {
	const text = "# syntax=docker/dockerfile:1\n# escape=`\nFROM a\n\n  # comment\nRUN one `\n  # inside\n  && two\n" +
		"COPY --chown=1 --link\t\"with space\" b /c/\nCOPY [\"x y\", \"/z\"]\nRUN <<EOF\nCOPY not /here\nEOF\nCOPY <<A <<-'B' /d\n1\nA\n2\n\tB\nENV A=\"b c\" D=e\nLABEL <<x\nCMD C:\\dir\nRUN last `"
	list, err := readInstructions(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list {
		got = append(got, fmt.Sprintf("%s %q %q %t", i.keyword, i.flags, i.args, i.heredoc))
	}
	want := []string{
		`from [] ["a"] false`, `run [] ["one" "&&" "two"] false`, `copy ["--chown=1" "--link"] ["with space" "b" "/c/"] false`,
		`copy [] ["x y" "/z"] false`, `run [] ["<<EOF"] true`, `copy [] ["<<A" "<<-B" "/d"] true`, `env [] ["A=b c" "D=e"] false`,
		`label [] ["<<x"] false`, `cmd [] ["C:\\dir"] false`, `run [] ["last"] false`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzDockerfile(f *testing.F) {
	for _, seed := range []string{"FROM a\nCOPY . .\n", "FROM a AS b\nARG X=${Y:-z}\nENV X y\nWORKDIR $X\nCOPY --from=b x /y\nADD [\"a\",\"b\"]\nRUN <<E\nE\n", "COPY", "# escape=`\nFROM"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		stages, err := parseDockerfile(strings.NewReader(text), map[string]string{"X": "1"})
		if err != nil {
			return
		}
		for _, s := range stages {
			for _, c := range s.copies {
				if len(c.from) == 0 || c.to == "" && c.problem == "" {
					t.Errorf("a copy of nothing, or to nowhere: %+v", c)
				}
			}
		}
	})
}
