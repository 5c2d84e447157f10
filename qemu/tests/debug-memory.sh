#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory that cannot be had: each allocation of each operation fails once (failnth.py), then every
# few of them fail under a mix of all. Nothing but ENOMEM comes of it, and the volume stays whole.
# vm: --kernel debug --disk 256M --timeout 1200

. "${BASH_SOURCE[0]%/*}/lib.sh"

faults=/sys/kernel/debug
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

python3 "$here/failnth.py" "$dev" "$mnt" >/tmp/nth 2>&1
check 'every operation was tried to its end' grep -q '^all: ' /tmp/nth
sed 's/^/# /' /tmp/nth
is 'each succeeds or fails with ENOMEM' '' "$(grep '^WRONG' /tmp/nth)"
at_least 'many of them did fail' 100 "$(awk '/^all:/ { print $4 }' /tmp/nth)"
check 'the volume still takes changes' touch "$mnt/after"
is 'it was never damaged' '' "$(dmesg | grep 'oxfs.*\(half way\|no more changes\|damage\)')"

# mix: many operations, some of whose allocations fail.
mix() {
	python3 - "$mnt" 2>&1 <<-'END'
		import collections, errno, os, random, sys, time
		with open("/proc/self/make-it-fail", "w") as file: file.write("1")
		top, ends, names = sys.argv[1], collections.Counter(), [f"m{i}" for i in range(30)]
		until = time.monotonic() + 25
		while time.monotonic() < until:
			name, other = (os.path.join(top, random.choice(names)) for _ in range(2))
			try:
				choice = random.randrange(8)
				if choice < 3:
					with open(name, "ab", buffering=0) as file:
						file.write(os.urandom(random.randrange(1, 40000)))
						if random.random() < 0.3: os.fsync(file.fileno())
				elif choice == 3: os.truncate(name, random.randrange(50000))
				elif choice == 4: os.rename(name, other)
				elif choice == 5: os.unlink(name)
				elif choice == 6: os.link(name, other)
				else:
					with open(name, "rb", buffering=0) as file: file.read()
				ends["OK"] += 1
			except MemoryError: ends["ENOMEM"] += 1
			except OSError as error: ends[errno.errorcode[error.errno]] += 1
		with open("/proc/self/make-it-fail", "w") as file: file.write("0")
		print(dict(ends))
		print("unexpected:", sorted(set(ends) - {"OK", "ENOMEM", "ENOENT", "EEXIST"}))
	END
}
for kind in failslab fail_page_alloc; do
	echo 1 >"$faults/$kind/interval"
	echo 2 >"$faults/$kind/probability"
done
mix >/tmp/mix
for kind in failslab fail_page_alloc; do echo 0 >"$faults/$kind/probability"; done
sed 's/^/# /' /tmp/mix
has 'a mix of operations meets nothing else' 'unexpected: []' "$(</tmp/mix)"
check 'the volume still takes changes after the mix' touch "$mnt/after"
is 'it was not damaged by the mix' '' "$(dmesg | grep 'oxfs.*\(half way\|no more changes\|damage\)')"
end
