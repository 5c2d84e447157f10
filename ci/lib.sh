# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What every script of the build shares: where the cache is, progress lines, and how a long
# step is done exactly once. A step works in a temporary folder and renames it when it is
# complete, so an interrupted one leaves nothing that looks finished.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${OXFS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oxfs}
# The distribution release whose kernel and toolchain are used, and the kernel series.
suite=trixie
series=7.3
# Not root: what needs root happens in a user namespace, where root is the caller.
user_namespace=()
[[ $EUID == 0 ]] || user_namespace=(--user --map-root-user --map-auto)
export top cache suite series user_namespace

# Progress goes to stderr: the scripts' standard output is their answer.
say() { printf 'oxfs: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# key FILE|STRING...: the name of a cache entry follows from the inputs that made it.
key() {
	local input
	for input; do
		if [[ -f $input ]]; then cat "$input"; else printf '%s\n' "$input"; fi
	done | sha256sum | cut -c1-12
}

# once NAME WHAT FUNCTION: makes $cache/NAME with FUNCTION, which is given an empty folder and
# must itself stop at the first error (`set -e` does not reach it).
once() {
	local name=$1 what=$2 make=$3 work start=$SECONDS
	[[ -e $cache/$name ]] && return
	mkdir -p "$cache"
	exec 9>"$cache/.$name.lock"
	flock -n 9 || { say "waiting for another run: $what"; flock 9; }
	if [[ ! -e $cache/$name ]]; then
		say "$what ..."
		work=$cache/.$name.tmp
		[[ ! -e $work ]] || unshare "${user_namespace[@]}" --mount rm -rf "$work"
		mkdir -p "$work"
		"$make" "$work" >"$cache/$name.log" 2>&1 9>&- || {
			tail -n 20 "$cache/$name.log" >&2
			die "failed: $what (full log: $cache/$name.log)"
		}
		mv "$work" "$cache/$name"
		say "$what: done in $((SECONDS - start)) s"
	fi
	exec 9>&-
}

# fresh PRODUCT SOURCE...: is it there, and newer than everything in these paths of the checkout?
fresh() {
	local product=$1 source
	shift
	[[ -e $product ]] || return 1
	for source; do
		[[ ! -e $top/$source ]] || [[ ! $(find "$top/$source" -newer "$product" \
			-not -path '*/target/*' -print -quit) ]] || return 1
	done
}

# need COMMAND PACKAGE...: installs what is missing where that is possible, one after the other.
need() {
	local missing=()
	while (($#)); do
		command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
			missing+=("$2")
		shift 2
	done
	((${#missing[@]})) || return 0
	if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
		die "please install: ${missing[*]} (names as in Debian)"
	fi
	say "installing on this machine: ${missing[*]}"
	mkdir -p "$cache"
	{
		flock 8
		apt-get update 8>&- &&
			DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
				"${missing[@]}" 8>&-
	} 8>"$cache/.apt.lock" >"${TMPDIR:-/tmp}/oxfs-apt.log" 2>&1 ||
		die "cannot install ${missing[*]} (log: ${TMPDIR:-/tmp}/oxfs-apt.log)"
}
