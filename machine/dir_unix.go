// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package machine

// endpoint is where a service of the machine listens.
func (d Dir) endpoint(service string) string { return d.file(service + ".sock") }
