// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	stdflate "compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/klauspost/compress/flate"
)

// The label holds the service as JSON, deflated against a dictionary of what services usually say, in base64: about 150 bytes for a usual
// service, so that listing many containers stays cheap. The first character is the version of this encoding.
const (
	configLabelVersion = '1'
	// maxConfigLabel bounds what a label may unpack to, in bytes: labels come from outside.
	maxConfigLabel = 4 << 20
)

// configDictionary belongs to version 1 of the encoding: labels cannot be read with another one. The most common goes last.
const configDictionary = `{"cap_add":["NET_ADMIN"],"deploy":{"resources":{"limits":{"cpus":0.5,"memory":"536870912"}},"placement":{}},` +
	`"logging":{"driver":"json-file","options":{"max-size":"10m"}},"secrets":[{"source":"password"}],"configs":[{"source":"config",` +
	`"target":"/etc/","mode":"0444"}],"user":"1000:1000","working_dir":"/app","container_name":"network_mode":"host","init":true,` +
	`"restart":"unless-stopped","restart":"always","labels":{"extra_hosts":["host.docker.internal=host-gateway"],"stop_grace_period":"10s",` +
	`"healthcheck":{"test":["CMD-SHELL","curl -f http://localhost","pg_isready -U postgres"],"timeout":"5s","interval":"10s","retries":5,` +
	`"start_period":"30s"},"volumes":[{"type":"bind","source":"/home/","target":"/var/lib/","read_only":true,"bind":{"create_host_path":` +
	`{"type":"volume","source":"data","target":"/var/lib/postgresql/data","volume":{}}],"command":["sh","-c","npm","run"],` +
	`"command":null,"entrypoint":["/bin/sh"],"environment":{"POSTGRES_PASSWORD":"POSTGRES_USER":"POSTGRES_DB":"DATABASE_URL":"postgres://",` +
	`"REDIS_URL":"redis://redis:6379","DEBUG":"1","NODE_ENV":"production","TZ":"Europe/"},"image":"postgres:nginx:redis:latest-alpine",` +
	`"ports":[{"mode":"ingress","host_ip":"127.0.0.1","target":80,"published":"8080","protocol":"tcp"}],"networks":{"front":null,"back":null},` +
	`"command":null,"entrypoint":null,"networks":{"default":null}}`

// EncodeServiceConfig packs the service for [LabelServiceConfig]: what its configuration hash covers, before references to other services are
// resolved.
func EncodeServiceConfig(s types.ServiceConfig) (string, error) {
	plain, err := json.Marshal(hashed(s))
	if err != nil {
		return "", fmt.Errorf("encode service %q: %w", s.Name, err)
	}
	var packed bytes.Buffer
	if err := flate.StatelessDeflate(&packed, plain, true, []byte(configDictionary)); err != nil {
		return "", fmt.Errorf("encode service %q: %w", s.Name, err)
	}
	return string(configLabelVersion) + base64.RawStdEncoding.EncodeToString(packed.Bytes()), nil
}

// DecodeServiceConfig reads what [EncodeServiceConfig] packed. The service has no name.
func DecodeServiceConfig(label string) (types.ServiceConfig, error) {
	s, err := decodeServiceConfig(label)
	if err != nil {
		return types.ServiceConfig{}, fmt.Errorf("decode service configuration: %w", err)
	}
	return s, nil
}

func decodeServiceConfig(label string) (s types.ServiceConfig, err error) {
	if label == "" {
		return s, errors.New("there is none")
	}
	if label[0] != configLabelVersion {
		return s, fmt.Errorf("version %q is not known", label[:1])
	}
	packed := base64.NewDecoder(base64.RawStdEncoding, strings.NewReader(label[1:]))
	plain, err := io.ReadAll(io.LimitReader(stdflate.NewReaderDict(packed, []byte(configDictionary)), maxConfigLabel+1))
	if err != nil {
		return s, err
	}
	if len(plain) > maxConfigLabel {
		return s, errors.New("it is too long")
	}
	var fields map[string]any
	if err := json.Unmarshal(plain, &fields); err != nil {
		return s, err
	}
	if plain, err = json.Marshal(decodable(fields)); err != nil {
		return s, err
	}
	return s, json.Unmarshal(plain, &s)
}

// decodable changes the fields that compose-go writes as JSON in a form that it does not read back.
func decodable(fields map[string]any) map[string]any {
	if limits, ok := fields["ulimits"].(map[string]any); ok {
		for name, limit := range limits {
			if n, ok := limit.(float64); ok {
				limits[name] = map[string]any{"single": n}
			}
		}
	}
	for _, section := range []string{"configs", "secrets"} {
		for _, use := range objects(fields[section]) {
			if mode, ok := use["mode"].(string); ok {
				var n int64
				if _, err := fmt.Sscanf(mode, "%o", &n); err == nil {
					use["mode"] = n
				}
			}
		}
	}
	for _, v := range objects(fields["volumes"]) {
		if bind, ok := v["bind"].(map[string]any); ok {
			if _, set := bind["create_host_path"]; !set {
				bind["create_host_path"] = true // left out because it is the default
			}
		}
	}
	for _, file := range objects(fields["env_file"]) {
		if _, set := file["required"]; !set {
			file["required"] = true
		}
	}
	if hosts, ok := fields["extra_hosts"].([]any); ok {
		fields["extra_hosts"] = hostAddresses(hosts)
	}
	return fields
}

// objects are the items of a list that are objects.
func objects(list any) []map[string]any {
	items, _ := list.([]any)
	var all []map[string]any
	for _, item := range items {
		if o, ok := item.(map[string]any); ok {
			all = append(all, o)
		}
	}
	return all
}

// hostAddresses turns NAME=ADDRESS entries into a map.
func hostAddresses(entries []any) map[string][]string {
	hosts := map[string][]string{}
	for _, entry := range entries {
		text, _ := entry.(string)
		name, address, _ := strings.Cut(text, "=")
		hosts[name] = append(hosts[name], address)
	}
	return hosts
}
