// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// resources converts the limits of a container and the devices it gets. deploy.resources wins over the older fields.
func (c conversion) resources() (container.Resources, error) {
	s := c.s
	r := container.Resources{
		CgroupParent:       s.CgroupParent,
		CPUCount:           s.CPUCount,
		CPUPercent:         int64(s.CPUPercent * 100),
		CPUPeriod:          s.CPUPeriod,
		CPUQuota:           s.CPUQuota,
		CPURealtimePeriod:  s.CPURTPeriod,
		CPURealtimeRuntime: s.CPURTRuntime,
		CPUShares:          s.CPUShares,
		CpusetCpus:         s.CPUSet,
		DeviceCgroupRules:  s.DeviceCgroupRules,
		Memory:             int64(s.MemLimit),
		MemoryReservation:  int64(s.MemReservation),
		MemorySwap:         int64(s.MemSwapLimit),
		NanoCPUs:           nanoCPUs(s.CPUS),
		OomKillDisable:     &s.OomKillDisable,
		Ulimits:            ulimits(s.Ulimits),
	}
	if s.MemSwappiness != 0 {
		swappiness := int64(s.MemSwappiness)
		r.MemorySwappiness = &swappiness
	}
	if s.PidsLimit != 0 {
		r.PidsLimit = &s.PidsLimit
	}
	blockIO(s.BlkioConfig, &r)
	if s.Deploy != nil {
		deployLimits(s.Deploy.Resources.Limits, &r)
		deployReservations(s.Deploy.Resources.Reservations, &r)
	}
	devices(s, &r)
	if r.NanoCPUs > 0 && (r.CPUQuota > 0 || r.CPUPeriod > 0) {
		return r, c.failf("cpus", "cannot be used together with cpu_quota or cpu_period")
	}
	return r, nil
}

// nanoCPUs converts a number of CPUs. The shortest decimal that the number stands for is taken, so that 0.3 gives 300000000.
func nanoCPUs(cpus float32) int64 {
	n, _ := strconv.ParseFloat(strconv.FormatFloat(float64(cpus), 'g', -1, 32), 64)
	return int64(math.Round(n * 1e9))
}

func deployLimits(limits *types.Resource, r *container.Resources) {
	if limits == nil {
		return
	}
	if limits.MemoryBytes != 0 {
		r.Memory = int64(limits.MemoryBytes)
	}
	if limits.NanoCPUs != 0 {
		r.NanoCPUs = nanoCPUs(limits.NanoCPUs.Value())
	}
	if limits.Pids > 0 {
		r.PidsLimit = &limits.Pids
	}
}

// deployReservations converts what one engine can reserve: memory and devices. CPUs are reserved in clusters only; see Unsupported.
func deployReservations(reserved *types.Resource, r *container.Resources) {
	if reserved == nil {
		return
	}
	if reserved.MemoryBytes != 0 {
		r.MemoryReservation = int64(reserved.MemoryBytes)
	}
	for _, d := range reserved.Devices {
		r.DeviceRequests = append(r.DeviceRequests, deviceRequest(d, d.Capabilities))
	}
}

func deviceRequest(d types.DeviceRequest, capabilities []string) container.DeviceRequest {
	return container.DeviceRequest{
		Driver:       d.Driver,
		Count:        int(d.Count),
		DeviceIDs:    d.IDs,
		Capabilities: [][]string{capabilities},
		Options:      d.Options,
	}
}

// cdiName matches the name of a device in the Container Device Interface: vendor.com/class=name.
var cdiName = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?=[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$`)

// devices converts device nodes, CDI devices and gpus.
func devices(s types.ServiceConfig, r *container.Resources) {
	var cdi []string
	for _, d := range s.Devices {
		if d.Source == d.Target && cdiName.MatchString(d.Source) {
			cdi = append(cdi, d.Source)
			continue
		}
		r.Devices = append(r.Devices, container.DeviceMapping{
			PathOnHost:        d.Source,
			PathInContainer:   d.Target,
			CgroupPermissions: d.Permissions,
		})
	}
	if len(cdi) > 0 {
		r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	for _, gpu := range s.Gpus {
		capabilities := slices.Clone(gpu.Capabilities)
		if !slices.Contains(capabilities, "gpu") {
			capabilities = append(capabilities, "gpu")
		}
		r.DeviceRequests = append(r.DeviceRequests, deviceRequest(gpu, capabilities))
	}
}

// ulimits converts the limits of processes, ordered by name.
func ulimits(limits map[string]*types.UlimitsConfig) []*container.Ulimit {
	var list []*container.Ulimit
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		u := limits[name]
		if u == nil {
			continue
		}
		soft, hard := u.Single, u.Single
		if u.Soft != 0 {
			soft = u.Soft
		}
		if u.Hard != 0 {
			hard = u.Hard
		}
		list = append(list, &container.Ulimit{Name: name, Soft: int64(soft), Hard: int64(hard)})
	}
	return list
}

// blockIO converts the weights and limits of block devices.
func blockIO(config *types.BlkioConfig, r *container.Resources) {
	if config == nil {
		return
	}
	r.BlkioWeight = config.Weight
	for _, d := range config.WeightDevice {
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
	}
	r.BlkioDeviceReadBps = throttles(config.DeviceReadBps)
	r.BlkioDeviceReadIOps = throttles(config.DeviceReadIOps)
	r.BlkioDeviceWriteBps = throttles(config.DeviceWriteBps)
	r.BlkioDeviceWriteIOps = throttles(config.DeviceWriteIOps)
}

func throttles(devices []types.ThrottleDevice) []*blkiodev.ThrottleDevice {
	var list []*blkiodev.ThrottleDevice
	for _, d := range devices {
		list = append(list, &blkiodev.ThrottleDevice{Path: d.Path, Rate: uint64(d.Rate)})
	}
	return list
}

// clusterOnly lists the fields of deploy that mean something in a cluster only.
func clusterOnly(s types.ServiceConfig) []string {
	d := s.Deploy
	if d == nil {
		return nil
	}
	var fields []string
	add := func(field string, set bool) {
		if set {
			fields = append(fields, "deploy."+field)
		}
	}
	add("mode", d.Mode != "" && d.Mode != "replicated")
	add("labels", len(d.Labels) > 0)
	add("update_config", d.UpdateConfig != nil)
	add("rollback_config", d.RollbackConfig != nil)
	add("endpoint_mode", d.EndpointMode != "")
	add("placement", len(d.Placement.Constraints)+len(d.Placement.Preferences) > 0 || d.Placement.MaxReplicas > 0)
	if r := d.RestartPolicy; r != nil {
		add("restart_policy.delay", r.Delay != nil)
		add("restart_policy.window", r.Window != nil)
	}
	if r := d.Resources.Limits; r != nil {
		add("resources.limits.generic_resources", len(r.GenericResources) > 0)
	}
	if r := d.Resources.Reservations; r != nil {
		add("resources.reservations.cpus", r.NanoCPUs != 0)
		add("resources.reservations.generic_resources", len(r.GenericResources) > 0)
	}
	return fields
}

// indexed is a field of an item of a list.
func indexed(list string, i int, field string) string {
	return fmt.Sprintf("%s[%d].%s", list, i, field)
}
