// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const sampleIndex = `module ext4 /m/ext4.ko jbd2,mbcache crc32c -
module jbd2 /m/jbd2.ko - - -
module mbcache /m/mbcache.ko - - -
module crc32c_generic /m/crc32c.ko - - -
module a /m/a.ko b - -
module b /m/b.ko - a c
module c /m/c.ko - - -
alias crc32c crc32c_generic
alias pci:v00001AF4d* a
alias nft-chain-* c
builtin nvme
`

func TestIndexFiles(t *testing.T) {
	x, err := ParseIndex(strings.NewReader(sampleIndex))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"ext4":               "/m/crc32c.ko /m/jbd2.ko /m/mbcache.ko /m/ext4.ko",
		"a":                  "/m/b.ko /m/c.ko /m/a.ko",
		"nft-chain-2-nat":    "/m/c.ko",
		"pci:v00001AF4d0001": "/m/b.ko /m/c.ko /m/a.ko",
		"nvme":               "",
	} {
		files, known := x.Files(name)
		if got := strings.Join(files, " "); got != want || !known {
			t.Errorf("Files(%q) = %q, %v; want %q", name, got, known, want)
		}
	}
	if _, known := x.Files("nothing"); known {
		t.Error("an unknown module is known")
	}
	if _, err := ParseIndex(strings.NewReader("module x\n")); err == nil {
		t.Error("a malformed line was accepted")
	}
}

// extDisk is a disk with an ext superblock at an offset.
func extDisk(size int, at int, label string) []byte {
	d := make([]byte, size)
	binary.LittleEndian.PutUint16(d[at+extMagicAt:], extMagic)
	copy(d[at+extLabelAt:], label)
	return d
}

func TestProbe(t *testing.T) {
	const big = spareSuper + 8<<20
	root := make([]byte, 8192)
	binary.LittleEndian.PutUint32(root[erofsSuper:], erofsMagic)
	copy(root[erofsSuper+erofsLabelAt:], rootLabel)
	late := make([]byte, 8<<20)
	late[len(late)-5] = 1
	cut := extDisk(big, extSuper, dataLabel)
	copy(cut[formattingAt:], formattingMark)
	for name, c := range map[string]struct {
		disk []byte
		want content
	}{
		"blank":              {make([]byte, 8<<20), contentBlank},
		"ours":               {extDisk(8<<20, extSuper, dataLabel), contentData},
		"another's ext4":     {extDisk(8<<20, extSuper, "home"), contentOther},
		"first block lost":   {extDisk(big, spareSuper, dataLabel), contentDamaged},
		"a format cut off":   {cut, contentBlank},
		"root":               {root, contentRoot},
		"seed":               {append([]byte("DEV-SEED"), make([]byte, 8192)...), contentSeed},
		"a partition table":  {append(append(make([]byte, 512), "EFI PART"...), make([]byte, 8192)...), contentOther},
		"something at start": {append([]byte{1}, make([]byte, 8<<20)...), contentOther},
		"something at end":   {late, contentOther},
	} {
		got, _, err := probe(bytes.NewReader(c.disk), int64(len(c.disk)))
		if got != c.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestChooseData(t *testing.T) {
	d := func(name string, holds content) disk { return disk{name: name, size: 1 << 30, holds: holds} }
	small := disk{name: "vdz", size: 1 << 20, holds: contentBlank}
	for name, c := range map[string]struct {
		disks  []disk
		name   string
		action dataAction
	}{
		"none":             {[]disk{d("vda", contentRoot), d("vdb", contentSeed), small}, "", dataNone},
		"ours":             {[]disk{d("vda", contentRoot), d("vdb", contentBlank), d("vdc", contentData)}, "vdc", dataUse},
		"ours and foreign": {[]disk{d("vdb", contentOther), d("vdc", contentData)}, "vdc", dataUse},
		"blank":            {[]disk{d("vdb", contentBlank)}, "vdb", dataFormat},
		"two blank":        {[]disk{d("vdb", contentBlank), d("vdc", contentBlank)}, "", dataRefuse},
		"foreign":          {[]disk{d("vdb", contentOther)}, "", dataRefuse},
		"foreign, blank":   {[]disk{d("vdb", contentOther), d("vdc", contentBlank)}, "", dataRefuse},
		"damaged":          {[]disk{d("vdb", contentDamaged)}, "vdb", dataRepair},
		"two of ours":      {[]disk{d("vdb", contentData), d("vdc", contentData)}, "", dataRefuse},
		"read-only":        {[]disk{{name: "sr0", size: 1 << 30, readOnly: true}}, "", dataNone},
		"partitioned":      {[]disk{{name: "sda", size: 1 << 30, partitioned: true}}, "", dataNone},
	} {
		got, action, err := chooseData(c.disks)
		if got != c.name || action != c.action || (action == dataRefuse) != (err != nil) {
			t.Errorf("%s: %q, %v, %v; want %q, %v", name, got, action, err, c.name, c.action)
		}
	}
}

// TestMigrate leads data disks forward and back: version 2 only adds to 1, version 3 breaks both.
func TestMigrate(t *testing.T) {
	steps := []migration{{to: 1, breaks: true}, {to: 2}, {to: 3, breaks: true}}
	for name, c := range map[string]struct {
		file    string
		knows   int
		ran     string
		wrote   string
		refused bool
	}{
		"a new disk":                  {"", 3, "1 2 3", `{"schema":3,"oldest":3}`, false},
		"the same version":            {`{"schema":2,"oldest":1}`, 2, "", "", false},
		"forward":                     {`{"schema":1}`, 2, "2", `{"schema":2,"oldest":1}`, false},
		"back, nothing was broken":    {`{"schema":2,"oldest":1}`, 1, "", "", false},
		"back, and something was":     {`{"schema":3,"oldest":3}`, 2, "", "", true},
		"cut off, with the image":     {`{"schema":2,"oldest":3}`, 3, "3", `{"schema":3,"oldest":3}`, false},
		"cut off, back":               {`{"schema":2,"oldest":3}`, 2, "", "", true},
		"far newer, by an older form": {`{"schema":99}`, 3, "", "", true},
		"absurd":                      {`{"schema":0}`, 3, "", "", true},
		"nonsense":                    {"nonsense", 3, "", "", true},
	} {
		var ran []string
		var known []migration
		for _, s := range steps[:c.knows] {
			s.run = func(string) error { ran = append(ran, strconv.Itoa(s.to)); return nil }
			known = append(known, s)
		}
		wrote := ""
		err := migrate([]byte(c.file), "", known, func(l layout) error {
			data, err := json.Marshal(l)
			wrote = string(data)
			return err
		})
		if (err != nil) != c.refused || strings.Join(ran, " ") != c.ran || wrote != c.wrote {
			t.Errorf("%s: ran %q, wrote %s, %v", name, ran, wrote, err)
		}
	}
	interrupted := errors.New("power cut")
	wrote := layout{}
	err := migrate([]byte(`{"schema":2,"oldest":1}`), "", []migration{{to: 3, breaks: true, run: func(string) error { return interrupted }}}, func(l layout) error { wrote = l; return nil })
	if !errors.Is(err, interrupted) || wrote != (layout{Schema: 2, Oldest: 3}) {
		t.Errorf("a migration that was cut off left %+v, %v", wrote, err)
	}
	if last := migrations[len(migrations)-1].to; last != DataSchema {
		t.Errorf("migrations end at version %d, the image makes %d", last, DataSchema)
	}
	oldest := 0
	for _, m := range migrations {
		if m.breaks {
			oldest = m.to
		}
	}
	if oldest != proto.DataOldest {
		t.Errorf("images need to know version %d after these migrations, and manifests say %d", oldest, proto.DataOldest)
	}
}

func TestEmulatorRule(t *testing.T) {
	got, err := emulatorRule("amd64", "/mnt/rosetta/rosetta")
	const want = `:dev-amd64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00:\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/mnt/rosetta/rosetta:CF`
	if err != nil || got != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	if _, err := emulatorRule("mips", "/x"); err == nil {
		t.Error("an unknown architecture was accepted")
	}
}

func TestDaemonJSON(t *testing.T) {
	data, err := daemonJSON(map[string]json.RawMessage{"debug": json.RawMessage("true"), "hosts": json.RawMessage(`["tcp://0.0.0.0:2375"]`)}, map[string]string{"HTTP_PROXY": "http://p"})
	if err != nil {
		t.Fatal(err)
	}
	s := string(data)
	for _, want := range []string{`"debug": true`, `"unix:///run/docker.sock"`, `"http-proxy": "http://p"`, `"shutdown-timeout": 45`} {
		if !strings.Contains(s, want) {
			t.Errorf("%s is not in %s", want, s)
		}
	}
	if strings.Contains(s, "2375") {
		t.Error("the seed opened another address")
	}
}
