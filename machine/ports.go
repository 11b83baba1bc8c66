// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Ports are loopback ports that a machine keeps from one start to the next, so that what was told to other programs stays true: ports.json.
type Ports struct {
	SSH int `json:"ssh"`
	TCP int `json:"tcp"`
}

// Valid says whether both can be ports, of different servers.
func (p Ports) Valid() bool {
	return p.SSH > 0 && p.SSH < 1<<16 && p.TCP > 0 && p.TCP < 1<<16 && p.SSH != p.TCP
}

// ReadPorts reads the machine's ports; fs.ErrNotExist where it has none yet.
func (d Dir) ReadPorts() (Ports, error) {
	data, err := os.ReadFile(d.Ports())
	if err != nil {
		return Ports{}, fmt.Errorf("read the machine's ports: %w", err)
	}
	var p Ports
	if err := json.Unmarshal(data, &p); err != nil {
		return Ports{}, fmt.Errorf("%w: %w", errDamagedPorts, err)
	}
	if !p.Valid() {
		return Ports{}, errDamagedPorts
	}
	return p, nil
}

var errDamagedPorts = errors.New("ports.json is damaged")
