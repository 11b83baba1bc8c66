// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// growWait is how long the kernel may take to notice that a disk has become larger.
const growWait = 20 * time.Second

// GrowData makes the file system of the data disk as large as the disk, which the host has made larger while it is in use: it waits until the kernel
// sees so many bytes. It is for the agent, as PID 1 waits for its own children only.
func GrowData(ctx context.Context, bytes int64) error {
	device, err := mountedOn(dataFolder, "/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("grow the data disk: %w", err)
	}
	if err := awaitSize(ctx, "/sys/block/"+filepath.Base(device)+"/size", bytes); err != nil {
		return fmt.Errorf("grow the data disk: %w", err)
	}
	out, err := exec.CommandContext(ctx, "resize2fs", device).CombinedOutput()
	if err != nil {
		return fmt.Errorf("grow the data disk: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

// mountedOn is the disk that is mounted at a folder.
func mountedOn(folder, mounts string) (string, error) {
	data, err := os.ReadFile(mounts)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == folder && strings.HasPrefix(f[0], "/dev/") {
			return f[0], nil
		}
	}
	return "", errors.New("the machine has none")
}

// awaitSize waits until a disk has at least so many bytes; its file counts sectors.
func awaitSize(ctx context.Context, file string, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, growWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for sysNumber(file)*512 < bytes {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the disk has %d bytes and not %d yet: %w", sysNumber(file)*512, bytes, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
