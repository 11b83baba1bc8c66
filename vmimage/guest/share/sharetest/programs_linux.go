// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Missing is what a [Case] returns that cannot be tried here, with the reason.
type Missing string

func (m Missing) Error() string { return "needs " + string(m) }

// Scale is how much is asked of a folder by [Programs].
type Scale struct {
	// Entries are in the largest folder.
	Entries int
	// Packages are unpacked, Archives installed by npm, and Commits checked out, of 100 files each.
	Packages, Archives, Commits int
}

// Scales of a test that runs always, of one in an emulated machine, and of one for which there is time.
var (
	Usual    = Scale{Entries: 5_000, Packages: 10, Commits: 3}
	Emulated = Scale{Entries: 1_000, Packages: 3, Commits: 2}
	Large    = Scale{Entries: 100_000, Packages: 50, Archives: 20, Commits: 30}
)

// Programs are cases in which real programs do what developers let them do, each in an empty folder. A case whose program is not installed returns [Missing].
func Programs(s Scale) []Case {
	group := func(name string, run func(dir string) error) Case {
		return Case{Group: "programs", Name: name, Run: run}
	}
	return []Case{
		group("packages are unpacked beside, moved into place, and linked", func(dir string) error { return installPackages(dir, s.Packages) }),
		group("npm install, again, and npm ci", func(dir string) error { return npmInstall(dir, s.Archives) }),
		group("sqlite with a write-ahead log, by several processes, one of them killed", func(dir string) error { return sqlite(dir, "wal") }),
		group("sqlite with a rollback journal, by several processes, one of them killed", func(dir string) error { return sqlite(dir, "delete") }),
		group("rsync -a --delete finds nothing to do the second time", rsync),
		group("git clone, checkout, gc, fsck, worktree", func(dir string) error { return gitWork(dir, s.Commits) }),
		group(fmt.Sprintf("a folder of %d entries is listed once and whole, while others come and go", s.Entries), func(dir string) error { return largeFolder(dir, s.Entries) }),
		group("tar there and back: extended attributes, links, holes, odd names", tarThereAndBack),
		group("cp -a --reflink=auto", copyAll),
		group("flock(1) of processes in different mount namespaces, one of them killed", flocks),
		group("a file that is open is replaced", replaceOpen),
		group("make builds once, and then what is older than what it is made of", makes),
		group("times grow with what is written later", timesGrow),
		group("go build with its module cache there", goBuild),
		group("python: a virtual environment, compiled modules", python),
	}
}

// needs says which programs are missing.
func needs(programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return Missing(p)
		}
	}
	return nil
}

// shell runs a script in a folder and returns what it prints. $1 and so on are arguments.
func shell(dir, script string, args ...string) (string, error) {
	cmd := exec.Command("sh", append([]string{"-c", "set -e; cd \"$0\"\n" + script, dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "LC_ALL=C", "HOME="+dir, "PYTHONDONTWRITEBYTECODE=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, lastOf(string(out)))
	}
	return strings.TrimSpace(string(out)), err
}

// lastOf is the end of what a program said.
func lastOf(out string) string {
	const most = 1500
	out = strings.TrimSpace(out)
	return out[max(0, len(out)-most):]
}

// prints says that a script prints a text.
func prints(dir, script, due string, args ...string) error {
	out, err := shell(dir, script, args...)
	if err == nil && out != due {
		err = fmt.Errorf("%q printed %q instead of %q", strings.TrimSpace(script), lastOf(out), due)
	}
	return err
}

// runs says that a script succeeds.
func runs(dir, script string, args ...string) error {
	_, err := shell(dir, script, args...)
	return err
}

// sqlite lets processes write to a database at the same time, kills one in a transaction, and has it checked.
func sqlite(dir, journal string) error {
	const processes, rows = "4", "15"
	if err := needs("sqlite3"); err != nil {
		return err
	}
	return steps(func() error {
		return prints(dir, `sqlite3 db "pragma journal_mode=$1"`, journal, journal)
	}, func() error {
		return runs(dir, `sqlite3 db 'create table t (who, what); create table other (x)'`)
	}, func() error {
		return runs(dir, `
			pids=
			for p in $(seq "$1"); do
				( for i in $(seq "$2"); do printf '.timeout 120000\nbegin immediate; insert into t values (%s, %s); select count(*) from t; commit;\n' "$p" "$i" | sqlite3 -bail db >/dev/null; done ) &
				pids="$pids $!"
			done
			for p in $pids; do wait "$p"; done`, processes, rows)
	}, func() error {
		return prints(dir, `sqlite3 db 'select count(*), count(distinct who || "-" || what) from t'`, "60|60")
	}, func() error { // killed after it has changed pages
		return runs(dir, `
			mkfifo commands
			sqlite3 db <commands >said & victim=$!
			exec 3>commands
			printf '.timeout 60000\npragma cache_size=5;\nbegin immediate;\ninsert into other select zeroblob(3000) from t, t as u limit 1000;\nselect "written";\n' >&3
			until grep -q written said; do sleep 0.05; done
			kill -9 $victim
			wait $victim || true
			exec 3>&-`)
	}, func() error {
		return prints(dir, `printf '.timeout 60000\npragma integrity_check; select count(*) from t; select count(*) from other; insert into other values (1); vacuum; pragma integrity_check;\n' | sqlite3 db`, "ok\n60\n0\nok")
	})
}

// rsync copies a tree from elsewhere and looks at what a second run does.
func rsync(dir string) error {
	if err := needs("rsync"); err != nil {
		return err
	}
	from, err := os.MkdirTemp("", "rsync-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(from)
	const again = `rsync -aHX --delete --itemize-changes "$1/" copy/`
	return steps(func() error { return furnish(from) }, func() error { return runs(dir, again, from) }, func() error { return sameTrees(from, dir+"/copy") }, func() error { return prints(dir, again, "", from) },
		func() error {
			return errors.Join(os.WriteFile(dir+"/copy/extra", nil, 0o644), os.WriteFile(from+"/plain", []byte("changed and longer"), 0o644))
		}, func() error {
			return prints(dir, again+` | grep -e '^>f' -e '^.deleting' | sort`, "*deleting   extra\n>f.st...... plain", from)
		}, func() error { return prints(dir, again, "", from) },
		func() error { return sameTrees(from, dir+"/copy") }, func() error {
			return prints(dir, `rsync -aHX --delete --itemize-changes copy/ second/ >/dev/null; rsync -aHX --delete --itemize-changes copy/ second/`, "")
		})
}

// gitWork does to a repository what is done to repositories.
func gitWork(dir string, commits int) error {
	if err := needs("git"); err != nil {
		return err
	}
	const config = `git config user.name test; git config user.email test@example.com; git config gc.auto 0`
	return steps(func() error { return runs(dir, "git init -q -b main origin; cd origin; "+config) }, func() error {
		for c := range commits {
			sub := fmt.Sprintf("%s/origin/d%d/sub", dir, c)
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
			for f := range 100 {
				if err := write(fmt.Sprintf("%s/f%d", sub, f), fmt.Sprintf("commit %d, file %d\n", c, f)); err != nil {
					return err
				}
			}
			if err := runs(dir, `cd origin; git add -A; git commit -q -m "commit $1"; git tag "v$1"`, fmt.Sprint(c)); err != nil {
				return err
			}
		}
		return nil
	}, func() error { return prints(dir, `cd origin; git status --porcelain`, "") }, func() error {
		return runs(dir, `git clone -q --no-local origin clone`)
	}, func() error {
		return prints(dir, `cd clone; git checkout -q v0; git ls-files | wc -l; git status --porcelain; git checkout -q main; find . -name .git -prune -o -type f -print | wc -l; git status --porcelain`, fmt.Sprintf("100\n%d", 100*commits))
	}, func() error {
		return runs(dir, `cd clone; git gc -q --prune=now; git fsck --full --strict; git worktree add -q ../tree v0; cd ../tree; test -z "$(git status --porcelain)"; echo x >>d0/sub/f1; test "$(git status --porcelain)" = ' M d0/sub/f1'`)
	}, func() error {
		return prints(dir, `cd clone; git mv d0 moved; git -c user.name=t -c user.email=t commit -q -m moved; git diff --stat v0 HEAD -- d0 | wc -l; git status --porcelain`, "101")
	},
		func() error { return prints(dir, `diff -r --exclude=.git origin/d0 clone/moved`, "") })
}

// flocks has locks held by a process in another mount namespace, as a container is.
func flocks(dir string) error {
	if err := needs("flock", "unshare"); err != nil {
		return err
	}
	if runs(dir, `unshare -m true`) != nil {
		return Missing("the right to make mount namespaces")
	}
	return runs(dir, `
		: >lock; mkfifo go
		unshare -m flock lock sh -c 'echo held >state; read x <go' &
		holder=$!
		until test -s state; do sleep 0.02; done
		! flock -n lock true
		! flock -n -s lock true
		! unshare -m flock -n lock true
		echo go >go; wait $holder
		unshare -m flock -n lock true
		rm state
		flock lock sh -c 'echo $$ >state; exec sleep 600' & holder=$!
		until test -s state; do sleep 0.02; done
		! unshare -m flock -n lock true
		kill -9 $(cat state) $holder; wait $holder || true
		flock -w 60 lock true
		flock -s lock sh -c 'flock -n -s lock true; ! flock -n lock true'`)
}

// replaceOpen replaces a file that a program reads and writes.
func replaceOpen(dir string) error {
	f := dir + "/f"
	if err := errors.Join(write(f, "old text"), write(dir+"/new", "new")); err != nil {
		return err
	}
	h, err := os.OpenFile(f, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer h.Close()
	text := func(due string) error {
		buf := make([]byte, 100)
		n, _ := h.ReadAt(buf, 0)
		if string(buf[:n]) != due {
			return fmt.Errorf("who has the old file open reads %q instead of %q", buf[:n], due)
		}
		return nil
	}
	return steps(func() error { return os.Rename(dir+"/new", f) }, func() error { return text("old text") }, func() error { return contains(f, "new") },
		func() error { _, err := h.WriteAt([]byte("OLD"), 0); return err }, func() error { return h.Sync() }, func() error { return text("OLD text") }, func() error { return contains(f, "new") },
		func() error {
			var st unix.Stat_t
			if err := unix.Fstat(int(h.Fd()), &st); err != nil || st.Nlink != 0 || st.Size != 8 {
				return fmt.Errorf("the old file has %d names and %d bytes: %w", st.Nlink, st.Size, err)
			}
			return nil
		}, func() error { return prints(dir, `cat f; ls -A`, "newf") })
}

// makes has make(1) build a chain of files, and again after one has changed.
func makes(dir string) error {
	if err := needs("make"); err != nil {
		return err
	}
	var file strings.Builder
	file.WriteString("all: t20\nt0:\n\ttouch t0\n")
	for i := range 20 {
		fmt.Fprintf(&file, "t%d: t%d\n\tcp t%d t%d; echo %d >>log\n", i+1, i, i, i+1, i+1)
	}
	return steps(func() error { return write(dir+"/Makefile", file.String()) }, func() error { return runs(dir, `make -s -j4; test "$(wc -l <log)" = 20`) },
		func() error { return prints(dir, `make -q && make -s && wc -l <log`, "20") }, func() error { tick(); return runs(dir, `echo more >>t10; ! make -q; make -s; make -q`) },
		func() error { return prints(dir, `wc -l <log; cat t20`, "30\nmore") }, func() error { tick(); return prints(dir, `touch t0; make -s; make -q; wc -l <log`, "50") })
}

// timesGrow writes files one after another and compares their times, which have more than seconds.
func timesGrow(dir string) error {
	var last unix.Stat_t
	fine := false
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprintf("f%d", i))
		var err error
		switch i % 4 {
		case 0:
			err = write(path, "text")
		case 1:
			err = os.Mkdir(path, 0o755)
		case 2:
			err = errors.Join(touch(path), unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0))
		case 3:
			err = withFile(path, func(h *os.File) error { _, err := h.WriteString("more"); return err })
		}
		if err != nil {
			return err
		}
		st, err := stat(path)
		if err != nil {
			return err
		}
		if st.Mtim.Nano() < last.Mtim.Nano() {
			return fmt.Errorf("file %d is of %d, and the one that was written before it of %d", i, st.Mtim.Nano(), last.Mtim.Nano())
		}
		fine = fine || st.Mtim.Nsec%1_000_000 != 0
		last = st
		if i%10 == 0 {
			tick()
		}
	}
	if !fine {
		return errors.New("no time has a part finer than milliseconds")
	}
	return nil
}

// python makes a virtual environment, and imports a module that it compiles, changes, and compiles again.
func python(dir string) error {
	if err := needs("python3"); err != nil {
		return err
	}
	if runs(dir, `python3 -c 'import venv, compileall'`) != nil {
		return Missing("python3's standard library")
	}
	return steps(func() error { return runs(dir, `python3 -m venv --without-pip env`) }, func() error {
		return prints(dir, `env/bin/python -c 'import sys; print(sys.prefix)'; test -L env/bin/python`, dir+"/env")
	}, func() error {
		return prints(dir, `
			site=$(env/bin/python -c 'import site; print(site.getsitepackages()[0])')
			mkdir "$site/mod"; echo 'value = 1' >"$site/mod/__init__.py"
			env/bin/python -c 'import mod; print(mod.value)'
			ls "$site"/mod/__pycache__ | wc -l
			echo 'value = 22' >"$site/mod/__init__.py"
			env/bin/python -c 'import mod; print(mod.value)'`, "1\n1\n22")
	})
}
