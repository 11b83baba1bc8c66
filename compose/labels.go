// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

// Labels that docker compose puts on what it makes, and reads back. Their names and meanings are an interface shared with docker
// compose (github.com/docker/compose, pkg/api/labels.go): a project started by one tool is seen and kept by the other.
const (
	LabelProject         = "com.docker.compose.project"
	LabelService         = "com.docker.compose.service"
	LabelConfigHash      = "com.docker.compose.config-hash"
	LabelContainerNumber = "com.docker.compose.container-number"
	LabelVolume          = "com.docker.compose.volume"
	LabelNetwork         = "com.docker.compose.network"
	LabelWorkingDir      = "com.docker.compose.project.working_dir"
	LabelConfigFiles     = "com.docker.compose.project.config_files"
	LabelEnvFiles        = "com.docker.compose.project.environment_file"
	LabelOneOff          = "com.docker.compose.oneoff"
	LabelSlug            = "com.docker.compose.slug"
	LabelImage           = "com.docker.compose.image"
	LabelDependsOn       = "com.docker.compose.depends_on"
	LabelReplace         = "com.docker.compose.replace"
	LabelVersion         = "com.docker.compose.version"
	LabelHook            = "com.docker.compose.hook"
	LabelHookIndex       = "com.docker.compose.hook-index"
)

// LabelServiceConfig holds the resolved service a container was made from (see [EncodeServiceConfig]), beside its hash, so
// that a later plan can name the fields that changed.
const LabelServiceConfig = "dev.compose.service-config"

// LabelFiles tells the state of what a container was given that its configuration hash does not cover: configs and secrets (their
// content, or the file they are), and a seccomp profile. See [FilesLabel].
const LabelFiles = "dev.compose.files"
