// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// The configuration hash is what docker compose compares to tell whether a container is still what its service asks for. Ours is the
// same, byte for byte, so that either tool keeps what the other made. It is the SHA-256 of the service as JSON, after this:
//
//   - build, pull_policy, scale, deploy.replicas, depends_on and profiles are left out: changing them does not make a container stale;
//   - variables and env_file are resolved, and env_file itself is left out ([Load] does both);
//   - network_mode, ipc and pid "service:NAME" read "container:ID", and the services in volumes_from read ID, without ":ro"
//     ([WithContainers]); so a service is recreated when the container whose namespace it shares was;
//   - a service with a build section and no platform gets DOCKER_DEFAULT_PLATFORM;
//   - the keys at the top stand in the order of compose-go v2.10's structure, which docker compose keeps to in later releases, and new
//     keys after them by name.
//
// What the hash does not cover is compared separately: see [LabelFiles].

// hashOrder lists the keys of a service in the order they are hashed in.
var hashOrder = strings.Fields(`
	profiles annotations attach build develop blkio_config cap_add cap_drop cgroup_parent cgroup cpu_count cpu_percent cpu_period
	cpu_quota cpu_rt_period cpu_rt_runtime cpus cpuset cpu_shares command configs container_name credential_spec depends_on deploy
	device_cgroup_rules devices dns dns_opt dns_search dockerfile domainname entrypoint provider environment env_file expose extends
	external_links extra_hosts group_add gpus hostname healthcheck image init ipc isolation labels label_file links logging log_driver
	log_opt mem_limit mem_reservation memswap_limit mem_swappiness mac_address models net network_mode networks oom_kill_disable
	oom_score_adj pid pids_limit platform ports privileged pull_policy read_only restart runtime scale secrets security_opt shm_size
	stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volume_driver
	volumes volumes_from working_dir pre_start post_start pre_stop pull_refresh_after`)

// ServiceHash is the configuration hash of a service, equal to docker compose's. References to other services' containers must have
// been resolved by [WithContainers]; one that was not gives a hash that no container has.
func ServiceHash(p *types.Project, s types.ServiceConfig) (string, error) {
	if s.Build != nil && s.Platform == "" {
		s.Platform = p.Environment[defaultPlatformEnvName]
	}
	b, err := json.Marshal(hashed(s))
	if err != nil {
		return "", fmt.Errorf("hash service %q: %w", s.Name, err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return "", fmt.Errorf("hash service %q: %w", s.Name, err)
	}
	return hashBytes(inHashOrder(keys)), nil
}

// hashed is the service without what does not count for its hash.
func hashed(s types.ServiceConfig) types.ServiceConfig {
	s.Build, s.PullPolicy, s.Scale, s.DependsOn, s.Profiles = nil, "", nil, nil, nil
	if s.Deploy != nil {
		deploy := *s.Deploy
		deploy.Replicas = nil
		s.Deploy = &deploy
	}
	return s
}

// inHashOrder writes the object with its keys in the order of hashOrder.
func inHashOrder(keys map[string]json.RawMessage) []byte {
	var b bytes.Buffer
	sep := byte('{')
	write := func(key string) {
		value, ok := keys[key]
		if !ok {
			return
		}
		b.WriteByte(sep)
		fmt.Fprintf(&b, "%q:", key)
		b.Write(value)
		sep = ','
		delete(keys, key)
	}
	for _, key := range hashOrder {
		write(key)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		write(key)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// NetworkHash is the configuration hash of a network, equal to docker compose's.
func NetworkHash(n types.NetworkConfig) (string, error) {
	b, err := json.Marshal(n)
	if err != nil {
		return "", fmt.Errorf("hash network %q: %w", n.Name, err)
	}
	return hashBytes(b), nil
}

// VolumeHash is the configuration hash of a volume, equal to docker compose's.
func VolumeHash(v types.VolumeConfig) (string, error) {
	if v.Driver == "" {
		v.Driver = "local"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("hash volume %q: %w", v.Name, err)
	}
	return hashBytes(b), nil
}

func hashBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
