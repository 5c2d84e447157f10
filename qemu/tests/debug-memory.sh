#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory that cannot be had: each allocation of each operation fails once, then every few of them
# (failnth.py). Nothing but ENOMEM comes of it, and the volume stays whole. With SHORT, some operations,
# not each of their allocations, and one interval.
# vm: --kernel debug --disk 256M --timeout 1800
# debug: short

. "${BASH_SOURCE[0]%/*}/lib.sh"

faults=/sys/kernel/debug
which=() intervals=(3 11 47 200) many=50 least=100
if [[ ${SHORT-} ]]; then
	which=(sparse mkdir 'write and fsync' 'read cold' clone snapshot swapon mount unmount)
	intervals=(11) many=15 least=15
fi
new_fs
for i in $(seq 100); do echo "$i" >"file$i"; done
cd / || give_up 'cd /'

# Also what may wait for memory, and single pages; silently.
for kind in failslab fail_page_alloc; do
	echo N >"$faults/$kind/ignore-gfp-wait"
	echo Y >"$faults/$kind/task-filter"
	echo 0 >"$faults/$kind/verbose"
	echo -1 >"$faults/$kind/times"
	echo 0 >"$faults/$kind/probability"
done
echo 0 >"$faults/fail_page_alloc/min-order"
echo N >"$faults/fail_page_alloc/ignore-gfp-highmem" 2>/dev/null

python3 "$here/failnth.py" "$dev" "$mnt" "${which[@]}" >/tmp/nth 2>&1
check 'every operation was tried to its end' grep -q '^all: ' /tmp/nth
sed 's/^/# /' /tmp/nth
is 'each succeeds or fails with ENOMEM' '' "$(grep '^WRONG' /tmp/nth)"
at_least 'many of them did fail' "$least" "$(awk '/^all:/ { print $4 }' /tmp/nth)"
check 'the volume still takes changes' touch "$mnt/after"
is 'it was never damaged' '' "$(dmesg | grep 'oxfs.*\(half way\|no more changes\|damage\)')"

# Every so many of the allocations of all operations, as they come.
seed=${SEED:-$((RANDOM << 15 | RANDOM))}
echo "# seed $seed"
for interval in "${intervals[@]}"; do
	for kind in failslab fail_page_alloc; do
		echo "$interval" >"$faults/$kind/interval"
		echo 100 >"$faults/$kind/probability"
	done
	python3 "$here/failnth.py" "$dev" "$mnt" mix "$many" "$seed" >/tmp/mix 2>&1
	for kind in failslab fail_page_alloc; do echo 0 >"$faults/$kind/probability"; done
	sed 's/^/# /' /tmp/mix
	is "every ${interval}th allocation: success or ENOMEM" '' "$(grep -v '^all: ' /tmp/mix)"
	check "every ${interval}th allocation: the operations were tried" grep -q "^all: $many runs" /tmp/mix
	check "every ${interval}th allocation: the volume still takes changes" touch "$mnt/after"
	is "every ${interval}th allocation: nothing was damaged" '' \
		"$(dmesg | grep 'oxfs.*\(half way\|no more changes\|damage\)')"
done
end
