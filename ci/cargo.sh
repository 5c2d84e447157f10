# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# How cargo is run: in the build root, on the host crate, without network except for one
# download whenever Cargo.lock has changed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

crate=$top/rust/tools
export CARGO_HOME=$cache/cargo CARGO_TARGET_DIR=$top/build/cargo

fetch_crates() {
	"$top/ci/root" cargo fetch --locked --manifest-path "$crate/Cargo.toml" &&
		date >"$1/done"
}

# in_crate COMMAND [ARG...]: runs it in the crate's folder.
in_crate() {
	mkdir -p "$CARGO_HOME" "$CARGO_TARGET_DIR"
	[[ -e $crate/Cargo.lock ]] || die "rust/tools/Cargo.lock is missing"
	once "crates-$(key "$crate/Cargo.lock")" 'libraries of the tools' fetch_crates
	(cd "$crate" && CARGO_NET_OFFLINE=true "$top/ci/root" "$@")
}
