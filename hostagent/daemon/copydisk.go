// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net/http"
	"path/filepath"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// settleWait bounds the guest's writing of what it keeps in memory before its disk is copied.
const settleWait = 60 * time.Second

// serveCopyDisk copies the data disk while the VM runs; the copying ends with the request.
func (a *agent) serveCopyDisk(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if !filepath.IsAbs(to) {
		http.Error(w, "the file is not an absolute path", http.StatusBadRequest)
		return
	}
	visit, err := a.gate.pass(r.Context(), reachGuest)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	defer visit.end()
	vm := a.vm()
	copier, ok := vm.(hostagent.DiskCopier)
	if !ok {
		http.Error(w, "this machine's disk can be copied only while it is stopped", http.StatusConflict)
		return
	}
	if err := copier.CopyDisk(r.Context(), to, a.settle); err != nil {
		a.log.Error("copy the data disk", "error", err)
		select {
		case <-vm.Done():
			http.Error(w, err.Error(), http.StatusGone)
			return
		default:
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	a.log.Info("copied the data disk", "to", to)
	w.WriteHeader(http.StatusNoContent)
}

// settle has the guest write what it keeps in memory. A guest that does not is copied as it is: its journal sees to the rest, as after a power cut.
func (a *agent) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	s, err := a.link.get(ctx)
	if err == nil {
		_, err = runScript(ctx, s.ssh, "sync\n")
	}
	if err != nil {
		a.log.Warn("the guest did not write what it keeps in memory before its disk was copied", "error", err)
	}
	return nil
}
