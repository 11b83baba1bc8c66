// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import "fmt"

// notYet refuses a flag that docker compose has and that dev knows but does not do yet; instead is what to do until then.
func notYet(flag, instead string) error {
	err := fmt.Errorf("%s is not there yet", flag)
	if instead == "" {
		return err
	}
	return withHint(err, "%s", instead)
}
