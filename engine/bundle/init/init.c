// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

/*
 * docker-init: the first process of a container run with --init.
 *
 * It starts one command, passes every signal on to it, reaps whatever is
 * re-parented to it, and exits as the command did (128+N for a signal). The
 * engine calls it as `docker-init -- COMMAND [ARG...]` and reads `--version`,
 * which must look like tini's. The options that containers may rely on through
 * tini's environment variables are there; the others are refused by name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef INIT_VERSION
#error "INIT_VERSION and INIT_REVISION are set by the builder"
#endif

struct options {
	int group;     /* signal the command's whole process group */
	int subreaper; /* adopt orphans although not PID 1 */
	char **argv;   /* the command */
};

static void usage(FILE *out)
{
	fputs("usage: docker-init [-g] [-s] [--] COMMAND [ARG...]\n"
	      "  -g  pass signals to the command's process group (TINI_KILL_PROCESS_GROUP)\n"
	      "  -s  adopt orphaned processes when not PID 1 (TINI_SUBREAPER)\n"
	      "  --version\n", out);
}

static struct options parse(int argc, char **argv)
{
	struct options o = {0};
	int opt;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts("tini version " INIT_VERSION " - git." INIT_REVISION);
		exit(0);
	}
	o.group = getenv("TINI_KILL_PROCESS_GROUP") != NULL;
	o.subreaper = getenv("TINI_SUBREAPER") != NULL;
	while ((opt = getopt(argc, argv, "+gsh")) != -1) {
		switch (opt) {
		case 'g': o.group = 1; break;
		case 's': o.subreaper = 1; break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	}
	o.argv = argv + optind;
	if (o.argv[0] == NULL) {
		usage(stderr);
		exit(2);
	}
	return o;
}

static void die(const char *what)
{
	fprintf(stderr, "docker-init: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The command gets its own process group and, when there is one, the terminal:
 * otherwise Ctrl-C would reach it twice, from the terminal and from us. */
static void run_command(char **argv, const sigset_t *mask, const struct sigaction old[2])
{
	if (setpgid(0, 0) < 0)
		die("make a process group");
	if (tcsetpgrp(STDIN_FILENO, getpgrp()) < 0 &&
	    errno != ENOTTY && errno != ENXIO && errno != EBADF && errno != EINVAL && errno != EPERM)
		die("hand over the terminal");
	sigaction(SIGTTIN, &old[0], NULL);
	sigaction(SIGTTOU, &old[1], NULL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
	int code = errno == ENOENT ? 127 : 126;
	fprintf(stderr, "docker-init: exec \"%s\": %s\n", argv[0], strerror(errno));
	_exit(code);
}

/* Reaps all that have ended; returns the command's exit code, -1 while it runs. */
static int reap(pid_t command)
{
	int code = -1, status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != command)
			continue;
		code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	if (pid < 0 && errno != ECHILD)
		die("wait for processes");
	return code;
}

/* Signals are blocked and fetched one by one: no handlers, no races. The ones
 * that report an error of this very process keep their default action. */
static void block_signals(sigset_t *blocked, sigset_t *mask, struct sigaction old[2])
{
	static const int own[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	sigfillset(blocked);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(blocked, own[i]);
	if (sigprocmask(SIG_SETMASK, blocked, mask) < 0)
		die("block signals");
	/* Background as we are, touching the terminal must not stop us. */
	sigaction(SIGTTIN, &ignore, &old[0]);
	sigaction(SIGTTOU, &ignore, &old[1]);
}

int main(int argc, char **argv)
{
	struct options o = parse(argc, argv);
	struct sigaction old[2];
	sigset_t blocked, mask;

	if (o.subreaper && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		die("become a subreaper");
	if (getpid() != 1 && !o.subreaper)
		fputs("docker-init: not PID 1: orphaned processes will not be reaped (use -s)\n", stderr);
	block_signals(&blocked, &mask, old);

	pid_t command = fork();
	if (command < 0)
		die("fork");
	if (command == 0)
		run_command(o.argv, &mask, old);
	/* Both sides do it, so that neither depends on who runs first; it fails
	 * harmlessly once the command has been exec'ed. */
	setpgid(command, command);

	for (;;) {
		siginfo_t info;
		int sig = sigwaitinfo(&blocked, &info);

		if (sig < 0) {
			if (errno == EINTR)
				continue;
			die("wait for signals");
		}
		if (sig != SIGCHLD) {
			/* The command may be gone already: then SIGCHLD is next. */
			kill(o.group ? -command : command, sig);
			continue;
		}
		int code = reap(command);
		if (code >= 0)
			return code;
	}
}
