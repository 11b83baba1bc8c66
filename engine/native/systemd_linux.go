// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import "context"

func (s *Service) startUnit(ctx context.Context) error { return s.spawn(ctx) }
