// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Requests of the protocol that mean something to a relay.
const (
	getFeatures         = 1
	setMemTable         = 5
	setLogBase          = 6
	setVringNum         = 8
	setVringAddr        = 9
	getVringBase        = 11
	setVringKick        = 12
	setVringCall        = 13
	getProtocolFeatures = 15
	getQueueNum         = 17
	getConfig           = 24
	getMaxMemSlots      = 36
	addMemReg           = 37
	remMemReg           = 38
	getStatus           = 40
)

// Flags of a message: the version, that it is an answer, and that it wants one.
const (
	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3
)

const (
	headerSize = 12
	maxBody    = 4096 // the largest of the protocol has some hundreds
	maxFiles   = 8
)

// message is one of the protocol's, with the files that came with it.
type message struct {
	request, flags uint32
	body           []byte
	files          []int
}

// wantsReply says whether who sent it waits for an answer.
func (m message) wantsReply() bool {
	switch m.request {
	case getFeatures, setLogBase, getVringBase, getProtocolFeatures, getQueueNum, getConfig, getMaxMemSlots, getStatus:
		return true
	}
	return m.flags&flagNeedReply != 0
}

// reply is an answer to m.
func (m message) reply(body []byte) message {
	return message{request: m.request, flags: flagVersion | flagReply, body: body}
}

// close closes the files that nobody took.
func (m *message) close() {
	for _, fd := range m.files {
		_ = unix.Close(fd)
	}
	m.files = nil
}

// receive reads a message.
func receive(c *net.UnixConn) (m message, err error) {
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	head := make([]byte, headerSize)
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return m, err
	}
	if n == 0 {
		return m, io.EOF
	}
	if m.files, err = parseFiles(oob[:oobn]); err != nil {
		return m, err
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return m, err
	}
	m.request, m.flags = binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:])
	size := binary.LittleEndian.Uint32(head[8:])
	if size > maxBody {
		return m, fmt.Errorf("a message of %d bytes", size)
	}
	m.body = make([]byte, size)
	_, err = io.ReadFull(c, m.body)
	return m, err
}

// parseFiles are the files that came along.
func parseFiles(oob []byte) (files []int, err error) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if fds, err := unix.ParseUnixRights(&c); err == nil {
			files = append(files, fds...)
		}
	}
	return files, nil
}

// send writes a message. Its files stay the caller's.
func send(c *net.UnixConn, m message) error {
	data := make([]byte, headerSize, headerSize+len(m.body))
	binary.LittleEndian.PutUint32(data, m.request)
	binary.LittleEndian.PutUint32(data[4:], m.flags)
	binary.LittleEndian.PutUint32(data[8:], uint32(len(m.body))) //nolint:gosec // at most maxBody
	var oob []byte
	if len(m.files) > 0 {
		oob = unix.UnixRights(m.files...)
	}
	data = append(data, m.body...)
	n, _, err := c.WriteMsgUnix(data, oob, nil)
	if err == nil && n < len(data) {
		err = errors.New("a message was cut short")
	}
	return err
}
