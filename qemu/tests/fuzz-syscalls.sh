#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fuzz-syscalls.sh [SEED [ROUNDS [COUNT]]]: random system calls (fuzz.py), of one process, of several, and
# on volumes whose trees were changed where checksums do not tell. One process with the same seed does
# the same again; `-v` of fuzz.py tells what. Each round has its own seed; SEED and one round repeat it.
# vm: --disk 256M --timeout 900

. "${BASH_SOURCE[0]%/*}/lib.sh"

first=${1:-20} rounds=${2:-2} count=${3:-1500}
operations=0 succeeded=0
limit=$(((200 + count / 10) * slower))
echo 60 >/proc/sys/kernel/hung_task_timeout_secs
echo 10 >/proc/sys/kernel/hung_task_check_interval_secs

# fuzz WORKERS [OPTION]...: with `seed`.
fuzz() {
	local workers=$1 status=0
	shift
	python3 "$here/fuzz.py" "$dev" "$mnt" --limit "$limit" --seed "$seed" --workers "$workers" \
		--count $((count / workers)) "$@" 7>&- 8<&- >/tmp/fuzz 2>&1 || status=$?
	cat /tmp/fuzz
	operations=$((operations + $(awk '/^operations:/ { n = $2 } END { print n + 0 }' /tmp/fuzz)))
	succeeded=$((succeeded + $(awk '/^operations:/ { n = $4 } END { print n + 0 }' /tmp/fuzz)))
	# Wherever it stopped.
	swapoff -a
	! mountpoint -q "$mnt" || umount "$mnt"
	return "$status"
}

# damaged: the volume that the rounds before left, with some fields changed.
damaged() {
	python3 "$here/oxfs-edit.py" "$dev" mutate "$seed" $((seed % 5 + 1)) && fuzz 2 --damaged
}

for ((seed = first; seed < first + rounds; seed++)); do
	echo "# seed $seed"
	make_fs
	check "one process, seed $seed" fuzz 1
	make_fs
	check "three processes, seed $seed" fuzz 3
	check "a damaged volume, seed $seed" damaged
done
echo "# operations: $operations succeeded: $succeeded"
at_least 'most of them do something' $((operations / 4)) "$succeeded"
at_least 'there were many' $((rounds * count / 2)) "$operations"
ktap_end
