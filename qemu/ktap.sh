# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# For test scripts: results in the kernel's KTAP form, flat, with the plan at the end. A script
# that does not come to `ktap_end` has no plan and counts as failed.
#
#   check NAME COMMAND [ARG]...   ok if COMMAND succeeds; what it printed is shown if not
#   pass NAME, fail NAME WHY
#   ktap_end                      the plan; exit status 1 if anything failed

ktap_count=0 ktap_failed=0
echo 'KTAP version 1'

pass() { echo "ok $((++ktap_count)) $1"; }

fail() {
	echo "not ok $((++ktap_count)) $1"
	((++ktap_failed))
	# shellcheck disable=SC2001 # every line of it
	sed 's/^/# /' <<<"$2"
}

check() {
	local name=$1 output status=0
	shift
	# Not in a subshell: what the command sets shall stay.
	output=$(mktemp)
	"$@" >"$output" 2>&1 || status=$?
	if ((status == 0)); then
		pass "$name"
	else
		fail "$name" "status $status: $*"$'\n'"$(tail -n 40 "$output")"
	fi
	rm -f "$output"
	return 0
}

ktap_end() {
	echo "1..$ktap_count"
	((ktap_failed == 0))
	exit
}
