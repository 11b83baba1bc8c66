// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

func TestProxyFile(t *testing.T) {
	got := proxyFile(map[string]string{"NO_PROXY": "localhost", "HTTP_PROXY": "http://p:1"})
	want := "HTTP_PROXY=http://p:1\nNO_PROXY=localhost\nhttp_proxy=http://p:1\nno_proxy=localhost\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := proxyFile(nil); got != "" {
		t.Errorf("without proxies: %q", got)
	}
}

func TestMergedTrust(t *testing.T) {
	image := []byte("image\n")
	for pem, want := range map[string]string{"": "image\n", "own\n": "image\n\nown\n"} {
		if got := string(mergedTrust(image, pem)); got != want {
			t.Errorf("with %q: %q", pem, got)
		}
	}
	if string(image) != "image\n" {
		t.Error("the image's were changed")
	}
}

// TestRenewRefuses: a seed without an identity would take the machine's away.
func TestRenewRefuses(t *testing.T) {
	_, err := Renew(&proto.Seed{Hostname: "box"})
	var refused *proto.Error
	if !errors.As(err, &refused) || refused.Code != proto.CodeBad {
		t.Errorf("got %v", err)
	}
}
