// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import "syscall"

func changeTime(s *syscall.Stat_t) int64 { return s.Ctim.Nano() }
