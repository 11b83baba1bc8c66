// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
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

func TestMigrate(t *testing.T) {
	for file, want := range map[string]int{"": 0, `{"schema":1}`: 1} {
		if got, err := migrate([]byte(file)); got != want || err != nil {
			t.Errorf("migrate(%q) = %d, %v", file, got, err)
		}
	}
	for _, file := range []string{`{"schema":99}`, `{"schema":0}`, `nonsense`} {
		if _, err := migrate([]byte(file)); err == nil {
			t.Errorf("migrate(%q) was accepted", file)
		}
	}
}

func TestDaemonJSON(t *testing.T) {
	data, err := daemonJSON(map[string]json.RawMessage{"debug": json.RawMessage("true"), "hosts": json.RawMessage(`["tcp://0.0.0.0:2375"]`)}, map[string]string{"HTTP_PROXY": "http://p"})
	if err != nil {
		t.Fatal(err)
	}
	s := string(data)
	for _, want := range []string{`"debug": true`, `"unix:///run/docker.sock"`, `"http-proxy": "http://p"`} {
		if !strings.Contains(s, want) {
			t.Errorf("%s is not in %s", want, s)
		}
	}
	if strings.Contains(s, "2375") {
		t.Error("the seed opened another address")
	}
}
