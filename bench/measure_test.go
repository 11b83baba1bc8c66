// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/enginetest"
)

// TestMeasure prints the tables of docs/performance.md.
func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("takes minutes and an idle machine: make bench runs it")
	}
	var out strings.Builder
	if !*looks {
		coldStart(t, &out)
	}
	e := enginetest.Start(t)
	c := e.Client(t)
	enginetest.BusyboxImage(t, c, image)
	s := suite{dev: devTool(t, e.Host), peer: newTool(t, "compose", *peer, e.Host), out: &out}
	// the first use of a program reads it from disk
	empty := independent(t, 1)
	s.dev.run(t, empty, "version")
	s.peer.run(t, empty, "version")

	s.looks(t, e, 50)
	if !*looks {
		s.changes(t, e)
	}
	fmt.Print(out.String())
	if *output != "" {
		if err := os.WriteFile(*output, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// changes measures what makes and removes containers.
func (s suite) changes(t *testing.T, e *enginetest.Engine) {
	t.Helper()
	s.table("Commands", "docker compose 5.0.2")
	for _, n := range []int{1, 10, 50} {
		s.lifecycle(t, fmt.Sprintf("%d services", n), independent(t, n))
	}
	s.lifecycle(t, "3 networks, 5 volumes, 3 ports", mixed(t))
	s.lifecycle(t, "healthy chain of 5, interval 1 s", chain(t, 5, ""))
	s.lifecycle(t, "the same, start_interval 100 ms", chain(t, 5, "100ms"))

	s.table("Against the engine's own limit, 50 services", "bare API calls")
	s.limits(t, e, 50)
	s.calls(t, e)
}

// suite measures two tools and writes tables.
type suite struct {
	dev, peer tool
	out       io.Writer
}

func (s suite) table(title, other string) {
	fmt.Fprintf(s.out, "\n### %s\n\n| what | dev | %s | ratio | aim | memory: dev, other |\n|---|---|---|---|---|---|\n", title, other)
}

// row writes one line: medians of both, and their ratio.
func (s suite) row(what, aim string, dev, other []sample) {
	a, b := median(dev, wall), median(other, wall)
	memory := ""
	if m := median(dev, peak); m > 0 && median(other, peak) > 0 {
		n := median(other, peak)
		memory = fmt.Sprintf("%.0f, %.0f MiB (%.2f)", mib(m), mib(n), float64(m)/float64(n))
	}
	fmt.Fprintf(s.out, "| %s | %.0f ms | %.0f ms | **%.2f** | %s | %s |\n", what, ms(a), ms(b), float64(a)/float64(b), aim, memory)
	fmt.Fprintf(os.Stderr, "%-50s %5.2f\n", what, float64(a)/float64(b))
}

// lifecycle measures a project from nothing to nothing, in turns.
func (s suite) lifecycle(t *testing.T, what, dir string) {
	t.Helper()
	steps := []struct {
		name, aim string
		times     int
		args      []string
	}{
		{"cold `up -d`", "", 1, []string{"up", "-d"}},
		{"no-op `up -d`", "0.35", 3, []string{"up", "-d"}},
		{"`ps`", "0.35", 3, []string{"ps"}},
		{"`config`", "", 3, []string{"config"}},
		{"`down -t 0`", "", 1, []string{"down", "-t", "0", "-v"}},
	}
	taken := make([][2][]sample, len(steps))
	for pair := range *pairs {
		order := []int{0, 1}
		if pair%2 == 1 {
			slices.Reverse(order)
		}
		for _, which := range order {
			c := []tool{s.dev, s.peer}[which]
			for i, step := range steps {
				for range step.times {
					taken[i][which] = append(taken[i][which], c.run(t, dir, step.args...))
				}
			}
		}
	}
	for i, step := range steps {
		s.row(what+": "+step.name, step.aim, taken[i][0], taken[i][1])
	}
}

// looks measures, in turns, what changes nothing of n services that run.
func (s suite) looks(t *testing.T, e *enginetest.Engine, n int) {
	t.Helper()
	fmt.Fprintf(s.out, "\n### What changes nothing, %d services\n\n", n)
	fmt.Fprintln(s.out, "| what | dev | docker compose 5.0.2 | ratio | aim | processor time: dev, other | memory: dev, other |\n|---|---|---|---|---|---|---|")
	dir := independent(t, n)
	tools := []tool{s.dev, s.peer}
	for _, c := range tools {
		c.run(t, dir, "up", "-d")
		defer c.run(t, dir, "down", "-t", "0")
	}
	for _, step := range []struct {
		what, aim string
		args      []string
		edited    bool // the file is another one each time, so that nothing that is kept of it helps
	}{
		{"", "0.5", []string{"version"}, false},
		{"", "0.35", []string{"up", "-d"}, false},
		{", file edited", "", []string{"up", "-d"}, true},
		{"", "0.5", []string{"ps"}, false},
		{"", "0.5", []string{"logs", "--tail", "1"}, false},
		{"", "0.5", []string{"config"}, false},
		{", file edited", "", []string{"config"}, true},
	} {
		var taken [2][]sample
		for range 4 * *pairs {
			if step.edited {
				edit(t, dir)
			}
			for i, c := range tools {
				taken[i] = append(taken[i], c.run(t, dir, step.args...))
			}
		}
		s.look("`"+strings.Join(step.args, " ")+"`"+step.what, step.aim, taken[0], taken[1])
	}
	fmt.Fprintf(s.out, "\nThe engine's own call for such a list: %.1f ms.\n", ms(listCall(t, e.Client(t), 4**pairs)))
}

// edit changes a project's file, but not what it says.
func edit(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "compose.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("# edited\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// listCall is how long the engine takes to list the containers of dev's project.
func listCall(t *testing.T, c *client.Client, times int) time.Duration {
	t.Helper()
	o := client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", compose.LabelProject+"=bench-dev")}
	var taken []sample
	for range times {
		began := time.Now()
		list, err := c.ContainerList(t.Context(), o)
		if err != nil || len(list.Items) == 0 {
			t.Fatalf("list %d containers: %v", len(list.Items), err)
		}
		taken = append(taken, sample{wall: time.Since(began)})
	}
	return median(taken, wall)
}

// look writes one line with processor time, which hardly depends on what else the machine does.
func (s suite) look(what, aim string, dev, other []sample) {
	compared := func(format string, unit func(sample) float64) string {
		a, b := median(dev, unit), median(other, unit)
		return fmt.Sprintf(format+" (**%.2f**)", a, b, a/b)
	}
	a, b := median(dev, wall), median(other, wall)
	fmt.Fprintf(s.out, "| %s | %.0f ms | %.0f ms | **%.2f** | %s | %s | %s |\n", what, ms(a), ms(b), float64(a)/float64(b), aim,
		compared("%.0f, %.0f ms", func(x sample) float64 { return ms(x.cpu) }), compared("%.0f, %.0f MiB", func(x sample) float64 { return mib(x.memory) }))
	fmt.Fprintf(os.Stderr, "%-50s %5.2f\n", what, float64(a)/float64(b))
}

// limits measures dev against bare calls at the concurrency that suits the engine best here.
func (s suite) limits(t *testing.T, e *enginetest.Engine, n int) {
	t.Helper()
	c := e.Client(t)
	best, bestUp := 0, time.Duration(0)
	for _, parallel := range []int{4, 8, 16} {
		if up, _ := limit(t, c, n, parallel); best == 0 || up < bestUp {
			best, bestUp = parallel, up
		}
	}
	dir := independent(t, n)
	var devUp, devDown, bareUp, bareDown []sample
	for range *pairs {
		devUp = append(devUp, s.dev.run(t, dir, "up", "-d"))
		devDown = append(devDown, s.dev.run(t, dir, "down", "-t", "0"))
		up, down := limit(t, c, n, best)
		bareUp, bareDown = append(bareUp, sample{wall: up}), append(bareDown, sample{wall: down})
	}
	s.row(fmt.Sprintf("cold `up -d`; create and start, %d at a time", best), "1.05", devUp, bareUp)
	s.row("`down -t 0`; remove by force", "1.15", devDown, bareDown)
}

// calls counts what each tool asks of the engine.
func (s suite) calls(t *testing.T, e *enginetest.Engine) {
	t.Helper()
	fmt.Fprintf(s.out, "\n### Engine calls: dev, docker compose\n\n| services | cold `up -d` | no-op `up -d` | `ps` | `down` |\n|---|---|---|---|---|\n")
	c := newCounter(t, e.Host)
	s.dev.host, s.peer.host = c.host, c.host
	for _, n := range []int{1, 10, 50} {
		dir := independent(t, n)
		cells := []string{}
		for _, args := range [][]string{{"up", "-d"}, {"up", "-d"}, {"ps"}, {"down", "-t", "0"}} {
			s.dev.run(t, dir, args...)
			mine := len(c.take())
			s.peer.run(t, dir, args...)
			cells = append(cells, fmt.Sprintf("%d, %d", mine, len(c.take())))
		}
		fmt.Fprintf(s.out, "| %d | %s |\n", n, strings.Join(cells, " | "))
	}
}

// coldStart measures the engine's start from an unpacked bundle to its first answer, as a user would start it. It runs before there is
// another engine in these namespaces.
func coldStart(t *testing.T, out io.Writer) {
	t.Helper()
	dev := devTool(t, "")
	root := t.TempDir()
	run := func(args ...string) time.Duration {
		cmd := exec.CommandContext(t.Context(), dev.path, append([]string{"engine"}, args...)...)
		cmd.Env = append(os.Environ(), "DEV_ENGINE_ROOT="+root, "DEV_HOME="+root, "DOCKER_HOST=")
		began := time.Now()
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dev engine %s: %v\n%s", strings.Join(args, " "), err, text)
		}
		return time.Since(began)
	}
	first := run("start", "--docker-context", "no")
	run("stop")
	var taken []sample
	for range *pairs {
		taken = append(taken, sample{wall: run("start", "--docker-context", "no")})
		run("stop")
	}
	fmt.Fprintf(out, "\n### The engine's start\n\n| what | time | aim |\n|---|---|---|\n")
	fmt.Fprintf(out, "| `dev engine start`, first time (unpacks and verifies the bundle) | %.0f ms | |\n", ms(first))
	fmt.Fprintf(out, "| `dev engine start`, later, to the first answer | %.0f ms | 600 ms |\n", ms(median(taken, wall)))
}

func wall(s sample) time.Duration { return s.wall }
func peak(s sample) int64         { return s.memory }

// median is the middle value of one property; the upper one of two.
func median[T cmp.Ordered](samples []sample, of func(sample) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
func mib(n int64) float64        { return float64(n) / (1 << 20) }
