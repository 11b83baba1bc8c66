// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed71221737/dev/compose"
)

// Name must agree with Load, which knows all the rules.
func TestNameIsLoadsName(t *testing.T) {
	const service = "services: {web: {image: x, labels: {name: other}}}\n"
	tests := []struct {
		name  string
		files map[string]string
		o     compose.LoadOptions
	}{
		{"folder", map[string]string{"compose.yaml": service}, compose.LoadOptions{}},
		{"name", map[string]string{"compose.yaml": "name: given\n" + service}, compose.LoadOptions{}},
		{"variable", map[string]string{"compose.yaml": "name: ${WHO}-x\n" + service}, compose.LoadOptions{Environment: map[string]string{"WHO": "you"}}},
		{"flag", map[string]string{"compose.yaml": "name: given\n" + service}, compose.LoadOptions{ProjectName: "flagged"}},
		{"environment", map[string]string{"compose.yaml": "name: given\n" + service}, compose.LoadOptions{Environment: map[string]string{"COMPOSE_PROJECT_NAME": "envd"}}},
		{".env", map[string]string{"compose.yaml": service, ".env": "COMPOSE_PROJECT_NAME=dotted\n"}, compose.LoadOptions{}},
		{"override", map[string]string{"compose.yaml": "name: one\n" + service, "compose.override.yaml": "name: two\n"}, compose.LoadOptions{}},
		{"override without", map[string]string{"compose.yaml": "name: one\n" + service, "compose.override.yaml": "services: {web: {hostname: h}}\n"}, compose.LoadOptions{}},
		{"bad name", map[string]string{"compose.yaml": "name: Not Good\n" + service}, compose.LoadOptions{}},
		{"bad flag", map[string]string{"compose.yaml": service}, compose.LoadOptions{ProjectName: "Not Good"}},
		{"bad environment", map[string]string{"compose.yaml": service}, compose.LoadOptions{Environment: map[string]string{"COMPOSE_PROJECT_NAME": "Not Good"}}},
		{"no file", nil, compose.LoadOptions{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "My.Project")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tt.o.WorkingDir = dir
			p, loadErr := compose.Load(t.Context(), tt.o)
			name, err := compose.Name(t.Context(), tt.o)
			if (err == nil) != (loadErr == nil) {
				t.Fatalf("Name: %q, %v; Load: %v", name, err, loadErr)
			}
			if err == nil && name != p.Name {
				t.Errorf("Name is %q, Load says %q", name, p.Name)
			}
		})
	}
}
