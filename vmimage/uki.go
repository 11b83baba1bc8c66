// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
)

// ukiSection is a section to append to the EFI stub.
type ukiSection struct {
	name string // at most eight bytes
	data []byte
}

// Places in a PE file, from the start of the PE header unless said otherwise.
const (
	peOffsetAt       = 0x3c // from the file's start: where the PE header is
	sectionCountAt   = 6
	optionalSizeAt   = 20
	optionalAt       = 24
	imageSizeAt      = optionalAt + 56
	headersSizeAt    = optionalAt + 60
	checksumAt       = optionalAt + 64
	certificatesAt   = optionalAt + 112 + 4*8 // the certificate table's place and size
	sectionHeaderLen = 40
	sectionFlags     = 0x40000040 // initialised data, readable
)

// buildUKI makes a unified kernel image: the EFI stub with the kernel, its command line and the initial RAM disk as further sections. The stub finds
// them by name and starts the kernel; firmware sees one program.
func buildUKI(stub []byte, sections []ukiSection) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("read EFI stub: %w", err)
	}
	opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || len(f.Sections) == 0 || opt.SectionAlignment == 0 || opt.FileAlignment == 0 {
		return nil, errors.New("read EFI stub: it is not a 64-bit PE program")
	}
	header := int(binary.LittleEndian.Uint32(stub[peOffsetAt:]))
	table := header + optionalAt + int(binary.LittleEndian.Uint16(stub[header+optionalSizeAt:]))
	next := table + len(f.Sections)*sectionHeaderLen
	if next+len(sections)*sectionHeaderLen > int(opt.SizeOfHeaders) {
		return nil, errors.New("extend EFI stub: its header has no room for more sections")
	}
	var address uint32
	for _, s := range f.Sections {
		address = max(address, alignUp(s.VirtualAddress+max(s.VirtualSize, s.Size), opt.SectionAlignment))
	}
	out := bytes.NewBuffer(bytes.Clone(stub))
	padTo(out, opt.FileAlignment)
	for i, s := range sections {
		raw := uint32(out.Len())
		out.Write(s.data)
		padTo(out, opt.FileAlignment)
		h := sectionHeader(s, address, raw, uint32(out.Len())-raw)
		copy(out.Bytes()[next+i*sectionHeaderLen:], h)
		address = alignUp(address+uint32(len(s.data)), opt.SectionAlignment)
	}
	image := out.Bytes()
	binary.LittleEndian.PutUint16(image[header+sectionCountAt:], uint16(len(f.Sections)+len(sections)))
	binary.LittleEndian.PutUint32(image[header+imageSizeAt:], address)
	binary.LittleEndian.PutUint32(image[header+checksumAt:], 0)
	if opt.NumberOfRvaAndSizes > 4 {
		clear(image[header+certificatesAt : header+certificatesAt+8]) // a signature over the stub alone would be wrong
	}
	return image, nil
}

func sectionHeader(s ukiSection, address, raw, rawSize uint32) []byte {
	h := make([]byte, sectionHeaderLen)
	copy(h[:8], s.name)
	binary.LittleEndian.PutUint32(h[8:], uint32(len(s.data)))
	binary.LittleEndian.PutUint32(h[12:], address)
	binary.LittleEndian.PutUint32(h[16:], rawSize)
	binary.LittleEndian.PutUint32(h[20:], raw)
	binary.LittleEndian.PutUint32(h[36:], sectionFlags)
	return h
}

func alignUp(n, to uint32) uint32 { return (n + to - 1) / to * to }

func padTo(b *bytes.Buffer, to uint32) {
	b.Write(make([]byte, alignUp(uint32(b.Len()), to)-uint32(b.Len())))
}
