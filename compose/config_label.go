// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// EncodeServiceConfig packs the service for [LabelServiceConfig].
func EncodeServiceConfig(s types.ServiceConfig) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode service %q: %w", s.Name, err)
	}
	var buf bytes.Buffer
	w, _ := flate.NewWriter(&buf, flate.BestSpeed)
	if _, err = w.Write(b); err == nil {
		err = w.Close()
	}
	return base64.RawStdEncoding.EncodeToString(buf.Bytes()), err
}

// DecodeServiceConfig reads what [EncodeServiceConfig] packed.
func DecodeServiceConfig(label string) (types.ServiceConfig, error) {
	var s types.ServiceConfig
	r := flate.NewReader(base64.NewDecoder(base64.RawStdEncoding, strings.NewReader(label)))
	b, err := io.ReadAll(r)
	if err != nil {
		return s, fmt.Errorf("decode service configuration: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("decode service configuration: %w", err)
	}
	return s, nil
}
