// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// StateName is the name of the file in the user's folder that keeps what dev
// remembers for the user.
const StateName = "state.json"

// stateSchema is the version of the file.
const stateSchema = 1

// Answer is what the user said to a question that is asked once.
type Answer string

// The answers; the empty one is none yet.
const (
	Unanswered Answer = ""
	Yes        Answer = "yes"
	No         Answer = "no"
)

// State is what dev remembers for the user. Unlike the configuration it is
// written by dev.
type State struct {
	Schema int `json:"schema"`
	// DockerContext: may dev make a docker context that leads to its engine?
	DockerContext Answer `json:"docker_context,omitempty"`
}

// LoadState reads what was remembered; nothing yet is the zero State.
func LoadState(name string) (State, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Schema: stateSchema}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read what dev remembers: %w", err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("read what dev remembers %q: %w", name, err)
	}
	if s.Schema != stateSchema {
		return State{}, fmt.Errorf("read what dev remembers %q: schema %d is not supported (this dev reads %d)", name, s.Schema, stateSchema)
	}
	return s, nil
}

// Save writes the state. The last of two that write at once wins: there is one
// answer in it.
func (s State) Save(name string) error {
	s.Schema = stateSchema
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(name, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember the answer: %w", err)
	}
	return nil
}
