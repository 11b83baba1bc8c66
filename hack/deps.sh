#!/bin/sh
# Installs what building and testing need beside Go and git: a C compiler and libseccomp for runc, a firewall tool for the engine, mmdebstrap
# to make a base image where none can be pulled, a static busybox for the tests' images, XFS to test clones of volumes, Python and node to see files change. Does nothing, and needs no network, when all is there.
# `hack/deps.sh machines` installs QEMU instead, with firmware for both architectures, to boot virtual machines.
set -eu

if [ "$(uname -s)" != Linux ]; then
	echo 'deps: nothing to install here. The engine is built and run on Linux; dev itself needs Go alone.' >&2
	exit 0
fi

PATH=$PATH:/usr/sbin:/sbin # firewall tools live there, and an ordinary user's PATH may not have it

missing=
need() { missing="$missing $1"; }
have() { command -v "$1" >/dev/null 2>&1; }
static_busybox() { have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }
# library says whether the compiler finds a static library.
library() { have gcc && [ "$(gcc -print-file-name="$1")" != "$1" ]; }

if [ "${1:-}" = machines ]; then
	have qemu-system-x86_64 || need qemu-system-x86
	have qemu-system-aarch64 || need qemu-system-arm
	[ -x /usr/lib/qemu/virtiofsd ] || [ -x /usr/libexec/virtiofsd ] || need qemu-system-common
	[ -f /usr/share/OVMF/OVMF_CODE_4M.fd ] || need ovmf
	[ -f /usr/share/AAVMF/AAVMF_CODE.fd ] || need qemu-efi-aarch64
	static_busybox || need busybox-static
	have tmux || need tmux
else
	have gcc || need gcc
	library libc.a || need libc6-dev
	have pkg-config || need pkg-config
	library libseccomp.a || need libseccomp-dev
	have nft || have iptables || need iptables
	have mmdebstrap || need mmdebstrap
	static_busybox || need busybox-static
	have mkfs.xfs || need xfsprogs
	have python3 || need python3-minimal # these two watch files in tests
	have node || need nodejs
	have rsync || need rsync # these work on shares in tests
	have sqlite3 || need sqlite3
	[ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || need debian-archive-keyring
	[ -f /etc/ssl/certs/ca-certificates.crt ] || [ ! -f /etc/debian_version ] || need ca-certificates
fi

[ -n "$missing" ] || exit 0

if ! have apt-get; then
	echo "deps: please install what your distribution calls:$missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	have sudo || { echo "deps: run as root: apt-get install$missing" >&2; exit 1; }
	sudo=sudo
fi
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # the list is meant to be split
$sudo apt-get install -y --no-install-recommends $missing </dev/null 2>/dev/null || {
	$sudo apt-get update </dev/null
	$sudo apt-get install -y --no-install-recommends $missing </dev/null
}
