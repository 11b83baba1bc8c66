// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"fmt"
	"strings"
)

// unitName is the name of the systemd unit.
const unitName = "dev-engine.service"

// unitText is the content of the systemd unit. Only the supervisor is systemd's
// to end: it ends the components, and containers outlive both.
func unitText(command, env []string) string {
	var words, environment []string
	for _, w := range command {
		words = append(words, unitQuote(w))
	}
	for _, v := range env {
		environment = append(environment, "Environment="+unitQuote(v)+"\n")
	}
	return fmt.Sprintf(`# Written by "dev engine start"; "dev engine uninstall" removes it.
[Unit]
Description=Docker Engine that dev carries
Documentation=https://github.com/seed71221737/dev
Wants=network-online.target
After=network-online.target nss-lookup.target firewalld.service
StartLimitIntervalSec=60
StartLimitBurst=3

[Service]
Type=notify
ExecStart=%s
%sRestart=on-failure
RestartSec=2
TimeoutStartSec=300
TimeoutStopSec=90
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNPROC=infinity
LimitCORE=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
`, strings.Join(words, " "), strings.Join(environment, ""))
}

// unitQuote quotes a word for a unit file, where % and $ have meanings.
func unitQuote(word string) string {
	word = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`, "\n", `\n`).Replace(word)
	if strings.ContainsAny(word, " \t'\";") || word == "" {
		return `"` + word + `"`
	}
	return word
}
