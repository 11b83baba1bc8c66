// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

func systemCertificates() (string, error) { return readCertificates(certificateFolders), nil }
