// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/access"
	"github.com/seed71221737/dev/vmimage"
)

// exitPreCreate is docker-machine's exit code for a host that lacks what a machine needs.
const exitPreCreate = 3

// mebibytes is a flag's size: a bare number is MiB, as with docker-machine; else it has a unit.
type mebibytes int

func (s *mebibytes) String() string {
	if *s == 0 {
		return ""
	}
	return units.CustomSize("%.4g %s", float64(*s), 1024, []string{"MiB", "GiB", "TiB", "PiB"})
}

// Type is the flag's placeholder in the help.
func (s *mebibytes) Type() string { return "SIZE" }

// Set reads "4096" or "4g".
func (s *mebibytes) Set(text string) error {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		*s = mebibytes(n)
		return nil
	}
	bytes, err := units.RAMInBytes(text)
	if err != nil || bytes < 1<<20 {
		return errors.New("it is not a size such as 4g, 512m or a number of MiB")
	}
	*s = mebibytes(bytes >> 20)
	return nil
}

// machineSizes are the flags of create and edit that say how large a machine is.
type machineSizes struct {
	cpus         int
	memory, disk mebibytes
	reclaim      string
	sleepAfter   string
	// sleepContainers is nil where nothing was said.
	sleepContainers optionalBool
}

// optionalBool is a switch that may be left as it is.
type optionalBool struct{ value *bool }

func (o *optionalBool) String() string {
	if o.value == nil {
		return ""
	}
	return strconv.FormatBool(*o.value)
}

func (o *optionalBool) Type() string { return "bool" }

func (o *optionalBool) IsBoolFlag() bool { return true }

func (o *optionalBool) Set(text string) error {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", text)
	}
	o.value = &b
	return nil
}

func (s *machineSizes) register(f *pflag.FlagSet) {
	f.IntVar(&s.cpus, "cpus", 0, "`NUMBER` of CPUs")
	f.Var(&s.memory, "memory", "memory, as 4g or a number of MiB")
	f.StringVar(&s.reclaim, "memory-reclaim", "", "give memory back that it does not need: "+strings.Join(machine.MemoryReclaims, ", ")+" (default: auto)")
	f.StringVar(&s.sleepAfter, "sleep-after", "", "suspend it when nobody has used it for so long, `DURATION` or never; whoever uses it next wakes it (default: "+shortDuration(machine.DefaultSleepAfter)+")")
	f.Var(&s.sleepContainers, "sleep-containers", "let it sleep though containers run: they stand still until somebody uses the machine")
	f.Lookup("sleep-containers").NoOptDefVal = "true"
	f.Var(&s.disk, "disk", "size of the data disk, as 60g; what is not used takes no room on the host")
}

// shortDuration leaves out what is zero: 15m instead of 15m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (s *machineSizes) apply(spec *machine.Spec) {
	if s.cpus != 0 {
		spec.CPUs = s.cpus
	}
	if s.memory != 0 {
		spec.MemoryMiB = int(s.memory)
	}
	if s.disk != 0 {
		spec.DiskMiB = int(s.disk)
	}
	if s.reclaim != "" {
		spec.MemoryReclaim = s.reclaim
	}
	if s.sleepAfter != "" {
		spec.SleepAfter = s.sleepAfter
	}
	if s.sleepContainers.value != nil {
		spec.SleepContainers = *s.sleepContainers.value
	}
}

// machineCreate are the flags of create.
type machineCreate struct {
	machineSizes
	driver, arch, accelerator string
	image                     string
	buildImage                bool
	shares                    []string
	noShare                   bool
	labels, tlsSAN            []string
	engine                    machine.EngineOptions
	installURL                string
	swarm, swarmMaster        bool
	use, noStart              bool
	context                   string
}

func newMachineCreateCommand(m *machines) *cobra.Command {
	var o machineCreate
	c := &cobra.Command{
		Use:   "create [OPTIONS] [MACHINE]",
		Short: "Make a machine and start it",
		Long: `Make a machine, default if it has no other name, and start it. Its engine then
answers at a local socket, what its containers publish appears on this host, and
the home folder is there under the same path, so that bind mounts work.

It boots an image from this host (dev machine image ls): the one of this release,
which is fetched, or the one that "dev machine image build" made.

EXIT STATUS
  0  the machine runs (or is made, with --no-start)
  1  it failed
  3  this host lacks what a machine needs; nothing was made`,
		Example: `  dev machine create                              sizes from this host's
  dev machine create --cpus 4 --memory 8g --use box   … and use it for dev up
  dev machine create --share ~/src --share /data:/data:ro box`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			name := defaultMachine
			if len(args) > 0 {
				name = args[0]
			}
			return m.runCreate(c, o, name)
		},
	}
	o.register(c.Flags(), m.getenv)
	help := c.HelpFunc()
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		showForeignFlags(c, o.driver)
		help(c, args)
	})
	return c
}

// register adds the flags; docker-machine's variables give their defaults.
func (o *machineCreate) register(f *pflag.FlagSet, getenv func(string) string) {
	env := func(name, otherwise string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	f.StringVarP(&o.driver, "driver", "d", env("MACHINE_DRIVER", "qemu"), "`NAME` of the driver")
	o.machineSizes.register(f)
	f.StringVar(&o.arch, "arch", "", "architecture: "+strings.Join(vmimage.Arches, ", ")+" (default: this host's)")
	f.StringVar(&o.image, "image", "", "`IMAGE` to boot: a tag, a digest, or a folder with an image")
	f.BoolVar(&o.buildImage, "build-image", false, "build the image first if there is none")
	f.StringArrayVar(&o.shares, "share", nil, "`FOLDER[:PATH][:ro][,type=TYPE][,cache=CACHE]` to share instead of the home folder, type fuse or virtiofs, and its cache auto, watched, always or never; may be repeated")
	f.BoolVar(&o.noShare, "no-share", false, "share no folder")
	f.StringArrayVar(&o.labels, "label", nil, "`KEY=VALUE` to find the machine by; may be repeated")
	f.BoolVar(&o.use, "use", false, "use it for dev up from now on")
	f.BoolVar(&o.noStart, "no-start", false, "do not start it")
	f.StringVar(&o.context, "docker-context", "", "make a docker context for it: yes or no (default: ask once)")

	f.StringVar(&o.accelerator, "qemu-accelerator", "", "auto, kvm, hvf, whpx or tcg (default: auto)")
	for flag, same := range map[string]string{"qemu-memory": "memory", "qemu-disk-size": "disk", "qemu-cpu-count": "cpus"} {
		x := *f.Lookup(same)
		x.Name, x.Hidden, x.Usage = flag, true, "the same as --"+same
		f.AddFlag(&x)
	}

	f.StringArrayVar(&o.engine.Options, "engine-opt", nil, "`NAME=VALUE` for the engine; may be repeated")
	f.StringArrayVar(&o.engine.InsecureRegistries, "engine-insecure-registry", nil, "`REGISTRY` to reach without TLS; may be repeated")
	f.StringArrayVar(&o.engine.RegistryMirrors, "engine-registry-mirror", splitList(getenv("ENGINE_REGISTRY_MIRROR")), "`URL` of a mirror of Docker Hub; may be repeated")
	f.StringArrayVar(&o.engine.Labels, "engine-label", nil, "label of the engine; may be repeated")
	f.StringVar(&o.engine.StorageDriver, "engine-storage-driver", "", "the engine's storage driver")
	f.StringArrayVar(&o.engine.Env, "engine-env", nil, "`NAME=VALUE` in the engine's environment; may be repeated")
	f.StringArrayVar(&o.tlsSAN, "tls-san", nil, "further `NAME` in the certificate of the TCP address; may be repeated")

	f.StringVar(&o.installURL, "engine-install-url", getenv("MACHINE_DOCKER_INSTALL_URL"), "without effect: the engine is in the image")
	f.BoolVar(&o.swarm, "swarm", false, "not there any more: standalone Swarm")
	f.BoolVar(&o.swarmMaster, "swarm-master", false, "not there any more: standalone Swarm")
	for _, name := range []string{"image", "discovery", "strategy", "opt", "join-opt", "host", "addr"} {
		f.StringArray("swarm-"+name, nil, "without effect: standalone Swarm is gone")
		_ = f.MarkHidden("swarm-" + name)
	}
	f.Bool("swarm-experimental", false, "without effect: standalone Swarm is gone")
	for _, name := range []string{"engine-install-url", "swarm", "swarm-master", "swarm-experimental"} {
		_ = f.MarkHidden(name)
	}
	addForeignFlags(f)
}

func (m *machines) runCreate(c *cobra.Command, o machineCreate, name string) error {
	ctx := c.Context()
	if o.swarm || o.swarmMaster {
		return errSwarm()
	}
	answer, err := parseAnswer(o.context)
	if err != nil {
		return err
	}
	s, err := m.store()
	if err != nil {
		return err
	}
	if err := refuseForeign(c.Flags(), o.driver, slices.Sorted(maps.Keys(s.Drivers))); err != nil {
		return err
	}
	if o.installURL != "" {
		m.warn("--engine-install-url has no effect: the engine is part of the machine's image")
	}
	spec, err := o.spec(m.app)
	if err != nil {
		return err
	}
	return m.create(ctx, s, name, spec, o, answer)
}

// spec is what the flags ask for; what they leave open follows from this host.
func (o *machineCreate) spec(a *app) (machine.Spec, error) {
	spec := machine.DefaultSpec()
	o.machineSizes.apply(&spec)
	var err error
	spec.Driver, spec.Accelerator, spec.Engine = o.driver, o.accelerator, o.engine
	if o.arch != "" {
		spec.Arch = o.arch
	}
	if spec.Labels, err = keyValues("--label", o.labels); err != nil {
		return spec, err
	}
	if len(o.tlsSAN) > 0 {
		spec.Options = map[string]string{machine.OptionTLSNames: strings.Join(o.tlsSAN, ",")}
	}
	if o.noShare && len(o.shares) > 0 {
		return spec, usagef("--share and --no-share exclude each other")
	}
	shares := o.shares
	if len(shares) == 0 && !o.noShare {
		shares = []string{"~"}
	}
	spec.Shares, err = a.parseShares(shares)
	return spec, err
}

// keyValues reads a repeated KEY=VALUE flag.
func keyValues(flag string, pairs []string) (map[string]string, error) {
	var m map[string]string
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("read %s %q: write KEY=VALUE", flag, pair)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[key] = value
	}
	return m, nil
}

// parseShares reads --share FOLDER[:PATH][:ro][,type=TYPE][,cache=CACHE].
func (a *app) parseShares(texts []string) ([]machine.Share, error) {
	var shares []machine.Share
	for _, text := range texts {
		s, err := parseShare(text, runtime.GOOS)
		if err != nil {
			return nil, err
		}
		if s.Host, err = a.path(s.Host); err != nil {
			return nil, err
		}
		s.Host = filepath.Clean(s.Host)
		shares = append(shares, s)
	}
	return shares, nil
}

func parseShare(text, goos string) (s machine.Share, err error) {
	text, s.Cache = cutShareOption(text, "cache")
	text, s.Type = cutShareOption(text, "type")
	rest, readOnly := strings.CutSuffix(text, ":ro")
	if !readOnly {
		rest = strings.TrimSuffix(rest, ":rw")
	}
	s.ReadOnly = readOnly
	from := 0
	if goos == "windows" && len(rest) > 1 && rest[1] == ':' {
		from = 2 // the drive's colon
	}
	if i := strings.Index(rest[from:], ":"); i >= 0 {
		s.Host, s.Guest = rest[:from+i], rest[from+i+1:]
	} else {
		s.Host = rest
	}
	if s.Host == "" || s.Guest != "" && !strings.HasPrefix(s.Guest, "/") {
		return s, usagef("read --share %q: write FOLDER, FOLDER:/PATH or either with :ro", text)
	}
	return s, nil
}

// cutShareOption takes ,NAME=VALUE off the end of a share; the spec refuses values that there are not.
func cutShareOption(text, name string) (rest, value string) {
	i := strings.LastIndex(text, ","+name+"=")
	if i < 0 || strings.ContainsAny(text[i:], `/\`) {
		return text, "" // part of a folder's name
	}
	value = text[i+len(name)+2:]
	rest = text[:i]
	if first, more, ok := strings.Cut(value, ","); ok {
		value, rest = first, rest+","+more // another option follows
	}
	return rest, value
}

// create makes a machine, and says what it makes.
func (m *machines) create(ctx context.Context, s *machine.Store, name string, spec machine.Spec, o machineCreate, answer config.Answer) error {
	if _, err := s.Get(name); err == nil {
		return &machine.ExistsError{Name: name}
	}
	// Before an image is fetched or built: that takes minutes.
	if err := machine.CheckNew(name, spec); err != nil {
		return err
	}
	if err := s.Drivers[spec.Driver].Check(ctx, spec); err != nil {
		return preCreate(&machine.CheckError{Driver: spec.Driver, Err: err})
	}
	var err error
	if spec.Image, err = m.imageFor(ctx, o.image, spec.Arch, o.buildImage); err != nil {
		return err
	}
	m.say(fmt.Sprintf("Machine %q: %s", name, describeSpec(spec)))
	one, err := s.Create(ctx, name, spec, machine.CreateOptions{Start: !o.noStart}, m.tell())
	if err != nil {
		m.showStartFailure(err)
		return preCreate(err)
	}
	if active, err := m.activeName(); err == nil && (o.use || active == "" && runtime.GOOS != "linux") {
		if err := m.setActive(name); err != nil {
			return err
		}
	}
	if o.noStart {
		m.say(fmt.Sprintf("Machine %q is made. Start it: %s", name, m.typed("start", name)))
		return nil
	}
	m.say(fmt.Sprintf("Machine %q runs. See how to use it from here: %s", name, m.typed("env", name)))
	return m.offerMachineContext(ctx, one, answer)
}

// describeSpec says what a machine gets.
func describeSpec(spec machine.Spec) string {
	memory, disk := mebibytes(spec.MemoryMiB), mebibytes(spec.DiskMiB)
	text := fmt.Sprintf("%d CPUs, %s of memory, a disk that grows to %s", spec.CPUs, memory.String(), disk.String())
	var shares []string
	for _, s := range spec.Shares {
		share := s.Host
		if s.ReadOnly {
			share += " (read-only)"
		}
		shares = append(shares, share)
	}
	if len(shares) == 0 {
		return text + ", no shared folder"
	}
	return text + ", shared: " + strings.Join(shares, ", ")
}

// preCreate gives an error of the host's check docker-machine's exit code.
func preCreate(err error) error {
	if _, ok := errors.AsType[*machine.CheckError](err); ok {
		return &codedError{err, exitPreCreate}
	}
	return err
}

// codedError is an error with an exit code.
type codedError struct {
	error
	code int
}

// ExitCode is the code.
func (e *codedError) ExitCode() int { return e.code }

func (e *codedError) Unwrap() error { return e.error }

// imageFor finds the image that a new machine boots, and returns its digest: the one named, else this release's, else the one built here.
func (m *machines) imageFor(ctx context.Context, name, arch string, build bool) (string, error) {
	store, err := m.imageStore()
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(name, `/\`) && isImageFolder(name) {
		i, err := importImage(ctx, store, name)
		return i.Digest, err
	}
	tags := []string{name}
	if name == "" {
		tags = []string{machine.DefaultImage}
		if MachineImage != "" {
			tags = []string{MachineImage, machine.DefaultImage}
		}
	}
	for _, tag := range tags {
		tag, _, _ = strings.Cut(tag, "@")
		i, err := store.Find(tag, arch)
		if _, missing := errors.AsType[*vmimage.NotFoundError](err); missing {
			continue
		}
		return i.Digest, err
	}
	return m.obtainImage(ctx, store, name, arch, build)
}

// obtainImage fetches or builds the image that is not there.
func (m *machines) obtainImage(ctx context.Context, store *vmimage.Store, name, arch string, build bool) (string, error) {
	// What these commands print is not this command's output.
	quiet := &app{in: m.in, out: m.err, err: m.err, env: m.env, cwd: m.cwd, interrupts: m.interrupts, globals: m.globals}
	tag := machine.DefaultImage
	switch {
	case name == "" && MachineImage != "":
		m.say("Fetching the machine image of this release, which is done once …")
		tag, _, _ = strings.Cut(MachineImage, "@")
		if err := quiet.pullImage(ctx, MachineImage, arch, tag); err != nil {
			return "", err
		}
	case name == "" && build:
		m.say("Building the machine image, which is done once …")
		b := imageBuild{arches: []string{arch}, tag: tag}
		if err := b.run(ctx, quiet); err != nil {
			return "", err
		}
	case name == "":
		return "", withHint(fmt.Errorf("create a machine: there is no machine image for %s on this host", arch),
			"build it once: %s, or let create do it: --build-image", m.typed("image build"))
	default:
		return "", withHint(&vmimage.NotFoundError{Name: name, Arch: arch}, "%s lists what there is; %s builds one", m.typed("image ls"), m.typed("image build"))
	}
	i, err := store.Find(tag, arch)
	return i.Digest, err
}

// isImageFolder reports whether a path is a folder with an image.
func isImageFolder(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, vmimage.ManifestName))
	return err == nil
}

// importImage copies an image's folder into the store.
func importImage(ctx context.Context, store *vmimage.Store, dir string) (vmimage.Image, error) {
	if _, err := vmimage.Verify(dir); err != nil {
		return vmimage.Image{}, err
	}
	workspace, err := store.Workspace()
	if err != nil {
		return vmimage.Image{}, err
	}
	defer os.RemoveAll(workspace)
	host := access.Host()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return vmimage.Image{}, fmt.Errorf("read image: %w", err)
	}
	for _, e := range entries {
		if err := access.Copy(ctx, host, filepath.Join(dir, e.Name()), host, workspace, access.CopyOptions{}); err != nil {
			return vmimage.Image{}, fmt.Errorf("import image: %w", err)
		}
	}
	return store.Add(ctx, workspace, machine.DefaultImage)
}
