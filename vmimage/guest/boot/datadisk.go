// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// DataSchema is the layout version of the data disk that this image makes; it reads all before it.
const DataSchema = proto.DataSchema

// dataLabel is the volume name of a data disk.
const dataLabel = "dev-data"

// What a disk holds, as far as choosing a data disk needs to know.
type content int

const (
	contentOther   content = iota // something that is not ours
	contentBlank                  // nothing at all
	contentData                   // our data disk
	contentDamaged                // ours by a spare superblock; the first is gone
	contentRoot                   // the image
	contentSeed                   // the seed
	contentReport                 // where maintenance is told of
)

// Places in ext4 and erofs.
const (
	extSuper     = 1024
	extMagicAt   = 0x38
	extMagic     = 0xEF53
	extBlockAt   = 0x18 // log2 of the block size, less 10
	extLabelAt   = 0x78
	erofsSuper   = 1024
	erofsMagic   = 0xE0F5E1E2
	erofsUUIDAt  = 48
	erofsLabelAt = 64
	rootLabel    = "dev-root"
	gptHeader    = 512
	minData      = 64 << 20 // no smaller disk is taken for a data disk
	blankSamples = 64
	blankEdge    = 1 << 20
	// formattingAt is a block that formatting leaves alone; while formatting goes on it holds formattingMark, so that a format that was cut off is
	// told from something that is not ours.
	formattingAt   = 32767 * 4096
	formattingMark = "DEV-FORMATTING"
	spareSuper     = 32768 * 4096 // where ext4 with blocks of 4 KiB keeps its first spare superblock
	superblockLen  = 1024
)

// probe finds out what a disk of a size in bytes holds. uuid is the root's where that is what it is.
func probe(r io.ReaderAt, size int64) (_ content, uuid string, err error) {
	head := make([]byte, 4096)
	if _, err := r.ReadAt(head, 0); err != nil {
		return contentOther, "", fmt.Errorf("read disk: %w", err)
	}
	if binary.LittleEndian.Uint32(head[erofsSuper:]) == erofsMagic {
		s := head[erofsSuper:]
		if text(s[erofsLabelAt:erofsLabelAt+16]) == rootLabel {
			return contentRoot, uuidText(s[erofsUUIDAt:]), nil
		}
		return contentOther, "", nil
	}
	if bytes.HasPrefix(head, []byte("DEV-SEED")) {
		return contentSeed, "", nil
	}
	if bytes.HasPrefix(head, []byte(proto.ReportMark)) {
		return contentReport, "", nil
	}
	if hasFormattingMark(r) {
		return contentBlank, "", nil
	}
	if isData(head[extSuper:]) {
		return contentData, "", nil
	}
	if binary.LittleEndian.Uint16(head[extSuper+extMagicAt:]) == extMagic || string(head[gptHeader:gptHeader+8]) == "EFI PART" {
		return contentOther, "", nil
	}
	if spare := make([]byte, superblockLen); size > spareSuper+superblockLen {
		if _, err := r.ReadAt(spare, spareSuper); err == nil && isData(spare) {
			return contentDamaged, "", nil
		}
	}
	blank, err := isBlank(r, size)
	if blank {
		return contentBlank, "", err
	}
	return contentOther, "", err
}

func hasFormattingMark(r io.ReaderAt) bool {
	mark := make([]byte, len(formattingMark))
	_, err := r.ReadAt(mark, formattingAt)
	return err == nil && string(mark) == formattingMark
}

// isData tells whether an ext superblock is that of a data disk.
func isData(s []byte) bool {
	return binary.LittleEndian.Uint16(s[extMagicAt:]) == extMagic && text(s[extLabelAt:extLabelAt+16]) == dataLabel
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func uuidText(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// isBlank tells whether a disk holds nothing: its first and last mebibyte and samples between are zeros. Every file system and partition table leaves
// something in the first mebibyte; the samples are for what is neither.
func isBlank(r io.ReaderAt, size int64) (bool, error) {
	edge := make([]byte, min(blankEdge, size))
	for _, at := range []int64{0, size - int64(len(edge))} {
		if zero, err := isZero(r, edge, at); !zero || err != nil {
			return false, err
		}
	}
	sample := make([]byte, 4096)
	for i := int64(1); i < blankSamples; i++ {
		at := size / blankSamples * i &^ 4095
		if at+4096 > size {
			break
		}
		if zero, err := isZero(r, sample, at); !zero || err != nil {
			return false, err
		}
	}
	return true, nil
}

func isZero(r io.ReaderAt, buf []byte, at int64) (bool, error) {
	if _, err := r.ReadAt(buf, at); err != nil {
		return false, fmt.Errorf("read disk: %w", err)
	}
	return len(bytes.TrimLeft(buf, "\x00")) == 0, nil
}

// disk is a whole disk of the machine.
type disk struct {
	name     string // vdb
	size     int64
	readOnly bool
	holds    content
	uuid     string
	serial   string // what the host calls a disk that is there besides the usual ones
	// partitioned disks are nobody's data disk.
	partitioned bool
}

// What to do about the data disk.
type dataAction int

const (
	dataNone dataAction = iota // there is no disk for it: what is written is lost at power-off
	dataUse
	dataRepair // the first superblock is gone: e2fsck restores it from a spare
	dataFormat
	dataRefuse
)

// chooseData decides which disk is the data disk. One that is ours wins; a single blank one is formatted; anything else is refused with a reason,
// because formatting is the one thing that cannot be taken back.
func chooseData(disks []disk) (name string, action dataAction, err error) {
	byContent := map[content][]string{}
	for _, d := range disks {
		if d.readOnly || d.partitioned || d.size < minData || d.serial == proto.OriginalDisk {
			continue
		}
		byContent[d.holds] = append(byContent[d.holds], d.name)
	}
	ours, damaged, blank, other := byContent[contentData], byContent[contentDamaged], byContent[contentBlank], byContent[contentOther]
	switch {
	case len(ours) > 1:
		return "", dataRefuse, fmt.Errorf("disks %s are all data disks: detach all but one", strings.Join(ours, ", "))
	case len(ours) == 1:
		return ours[0], dataUse, nil
	case len(damaged) == 1:
		return damaged[0], dataRepair, nil
	case len(other) > 0:
		return "", dataRefuse, fmt.Errorf("disk %s holds something that is not a data disk of dev, or one too damaged to tell: it is left alone. Restore it from a copy, or attach an empty disk instead", strings.Join(other, ", "))
	case len(blank) == 1:
		return blank[0], dataFormat, nil
	case len(blank) > 1:
		return "", dataRefuse, fmt.Errorf("disks %s are all empty: attach one data disk", strings.Join(blank, ", "))
	}
	return "", dataNone, nil
}

// layout is the file on the data disk that says its layout's version.
type layout struct {
	Schema int `json:"schema"`
	// Oldest is the lowest layout version whose images can still use the disk: a migration that only adds leaves it alone, and with it the way back. It is
	// above Schema while a migration that breaks earlier images is under way.
	Oldest int `json:"oldest,omitempty"`
}

// migration leads a data disk mounted at dir from one layout to the next. It is repeated when it was cut off, so it must not mind finding its work
// half done, and it must not remove what the layout before it needs unless breaks is set.
type migration struct {
	to     int
	breaks bool // images that know only earlier layouts cannot use the disk any more
	run    func(dir string) error
}

// migrations are all there are, in order, up to DataSchema. Version 1 is the first layout: it needs only its folders, which every boot makes.
var migrations = []migration{{to: DataSchema, breaks: true, run: func(string) error { return nil }}}

// migrate leads the data disk at dir from what its layout file says to the newest version of steps; write replaces the layout file. A newer layout is used
// as it is if it says that this image can; otherwise it is refused and the disk left alone, for the image that made it.
func migrate(file []byte, dir string, steps []migration, write func(layout) error) error {
	newest := steps[len(steps)-1].to
	var l layout
	if len(file) > 0 {
		if err := json.Unmarshal(file, &l); err != nil {
			return fmt.Errorf("read the data disk's layout version: %w", err)
		}
		if l.Schema < 0 || l.Oldest < 0 || l.Schema == 0 && l.Oldest == 0 {
			return errors.New("the data disk's layout version is absurd")
		}
		if l.Oldest == 0 {
			l.Oldest = l.Schema // written before the field was
		}
	}
	if l.Oldest > newest {
		return fmt.Errorf("the data disk's layout is version %d and this image knows %d: start the machine with the image that made it, or a newer one", max(l.Schema, l.Oldest), newest)
	}
	for _, s := range steps {
		if s.to <= l.Schema {
			continue
		}
		if s.breaks && l.Oldest < s.to {
			l.Oldest = s.to // before anything is changed
			if err := write(l); err != nil {
				return fmt.Errorf("migrate the data disk to layout version %d: %w", s.to, err)
			}
		}
		if err := s.run(dir); err != nil {
			return fmt.Errorf("migrate the data disk to layout version %d: %w", s.to, err)
		}
		l.Schema = s.to
		if err := write(l); err != nil {
			return fmt.Errorf("migrate the data disk to layout version %d: %w", s.to, err)
		}
	}
	return nil
}
