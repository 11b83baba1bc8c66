// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"testing"
)

func TestFindPortConflict(t *testing.T) {
	tests := map[string]string{
		"driver failed programming external connectivity on endpoint web (8f): Bind for 0.0.0.0:8080 failed: port is already allocated":                              "port 8080/tcp of the host is already in use",
		"Bind for :::8080 failed: port is already allocated":                                                                                                         "port 8080/tcp of the host is already in use",
		"Bind for 127.0.0.1:53 failed: port is already allocated":                                                                                                    "port 127.0.0.1:53/tcp of the host is already in use",
		"failed to set up container networking: driver failed programming: failed to bind host port for 0.0.0.0:8080:172.18.0.2:80/tcp: address already in use":      "port 8080/tcp of the host is already in use",
		"failed to bind host port 0.0.0.0:53/udp: address already in use":                                                                                            "port 53/udp of the host is already in use",
		"failed to bind host port [::1]:80/tcp: address already in use":                                                                                              "port [::1]:80/tcp of the host is already in use",
		"Error starting userland proxy: listen tcp4 0.0.0.0:5432: bind: address already in use":                                                                      "port 5432/tcp of the host is already in use",
		"Ports are not available: ports are not available: exposing port UDP 0.0.0.0:53 -> 127.0.0.1:0: listen udp4 0.0.0.0:53: bind: An attempt was made to access": "port 53/udp of the host is already in use",
		"failed to bind host port 0.0.0.0:80/tcp: permission denied":                                                                                                 "",
		"no space left on device":                                  "",
		"Bind for 0.0.0.0:99999 failed: port is already allocated": "",
	}
	for text, want := range tests {
		got := ""
		if e := findPortConflict(errors.New(text)); e != nil {
			got = e.Error()
		}
		if got != want {
			t.Errorf("%s\n got  %q\n want %q", text, got, want)
		}
	}
	if findPortConflict(nil) != nil {
		t.Error("no error is a conflict")
	}
}

func FuzzFindPortConflict(f *testing.F) {
	f.Add("Bind for 0.0.0.0:8080 failed: port is already allocated")
	f.Add("failed to bind host port for 0.0.0.0:8080:172.18.0.2:80/tcp: address already in use")
	f.Fuzz(func(t *testing.T, text string) {
		if e := findPortConflict(errors.New(text)); e != nil && (e.Error() == "" || e.Protocol == "") {
			t.Errorf("%q: got %+v", text, e)
		}
	})
}
