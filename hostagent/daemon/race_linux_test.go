// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build race

package daemon

const raceDetector = true
