#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Requests that fail now and then, anywhere (fail_make_request), and blocks that cannot be read
# (dm-dust): the error reaches who asked and nobody else, what was acknowledged stays, and what can be
# read again is read again.
# vm: --kernel debug --disk 256M

. "${BASH_SOURCE[0]%/*}/lib.sh"

disk=$dev
faults=/sys/kernel/debug/fail_make_request
seed=${SEED:-$((RANDOM << 15 | RANDOM))}
echo "# seed $seed"

# faulty PERCENT: how many of the device's requests fail from now on.
faulty() {
	echo "$1" >$faults/probability
	echo $(($1 > 0)) >/sys/block/vda/make-it-fail
}
echo 0 >$faults/verbose
echo 1 >$faults/interval
echo -1 >$faults/times
echo N >$faults/task-filter

cat >/tmp/mix.py <<-'END'
	# Files are made, added to, synced, read, removed; prints how calls ended, by error, and writes to a
	# file in memory what each file whose last fsync succeeded must at least have.
	import collections, errno, hashlib, json, os, random, sys, time
	top, seconds, seed, kept = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
	chance, ends, synced = random.Random(seed), collections.Counter(), {}
	until = time.monotonic() + seconds
	while time.monotonic() < until:
	    name = f"m{chance.randrange(40)}"
	    path = os.path.join(top, name)
	    try:
	        choice = chance.randrange(8)
	        if choice < 4:
	            with open(path, "ab", buffering=0) as file:
	                file.write(chance.randbytes(chance.randrange(1, 60000)))
	                if choice < 2:
	                    os.fsync(file.fileno())
	                    with open(path, "rb") as whole:
	                        content = whole.read()
	                    synced[name] = [len(content), hashlib.sha256(content).hexdigest()]
	        elif choice == 4:
	            with open(path, "rb", buffering=0) as file:
	                file.read()
	        elif choice == 5:
	            # Whether it is gone when unlink or sync fail, nobody has promised.
	            synced.pop(name, None)
	            os.unlink(path)
	        elif choice == 6:
	            os.listdir(top)
	        else:
	            with open("/proc/sys/vm/drop_caches", "w") as file:
	                file.write("3")
	        ends["OK"] += 1
	    except OSError as error:
	        ends[errno.errorcode[error.errno]] += 1
	with open(kept, "w") as file:
	    json.dump(synced, file)
	print(dict(ends))
	print("unexpected:", sorted(set(ends) - {"OK", "EIO", "EROFS", "ENOENT"}))
END
cat >/tmp/compare.py <<-'END'
	import hashlib, json, os, sys
	wrong = 0
	for name, (size, digest) in json.load(open(sys.argv[2])).items():
	    with open(os.path.join(sys.argv[1], name), "rb") as file:
	        wrong += hashlib.sha256(file.read(size)).hexdigest() != digest
	print(wrong)
END

make_fs
for percent in 1 5 25; do
	must mount -t oxfs -o commit=1 "$dev" "$mnt"
	faulty $percent
	python3 /tmp/mix.py "$mnt" 15 $((seed + percent)) /tmp/kept >/tmp/ends 2>&1
	faulty 0
	sed 's/^/# /' /tmp/ends
	has "$percent of 100 requests fail: nothing but EIO, and EROFS after a failed commit" 'unexpected: []' "$(</tmp/ends)"
	has "$percent of 100 requests fail: some calls did" "'EIO'" "$(</tmp/ends)"
	is 'what fsync acknowledged can be read' 0 "$(python3 /tmp/compare.py "$mnt" /tmp/kept 2>&1)"
	check 'it can be unmounted' umount "$mnt"
	check 'the volume is clean' check_fs
	must mount -t oxfs "$dev" "$mnt"
	is 'what fsync acknowledged is there' 0 "$(python3 /tmp/compare.py "$mnt" /tmp/kept 2>&1)"
	check 'it takes changes' eval "date >$mnt/date && sync -f $mnt && rm -f $mnt/m*"
	must umount "$mnt"
done

# Blocks that cannot be read.
dust() { must dmsetup message oxdisk 0 "$@"; }
must dmsetup create oxdisk --noudevsync --table "0 $((256 << 11)) dust $disk 0 4096"
must dmsetup mknodes
dev=/dev/mapper/oxdisk
new_fs
do_op fill data 4 1
for i in $(seq 3000); do : >"some-file-with-a-long-name-$i"; done
must cp --reflink=always data clone
before=$(sums data)
bad=$(fileop fiemap data | awk 'NR == 1 { print $2 + 100 }')
remount
dust addbadblock "$bad"
dust enable
dmesg -C
op 'a block of data that cannot be read: EIO' EIO read data $((100 << 12))
op 'also past the page cache' EIO read-direct data $((100 << 12))
op 'and in the clone' EIO read clone $((100 << 12))
op 'the one before it can be read' OK read data $((99 << 12))
op 'and the one after it' OK read data $((101 << 12))
op 'the clone is given another one' OK write clone $((100 << 12))
must sync
drop_caches
op 'which can be read' OK read clone $((100 << 12))
op 'the other one cannot, still' EIO read data $((100 << 12))
dust removebadblock "$bad"
is 'when it can be read again, it is' "$before" "$(sums data)"

cd / || give_up 'cd /'
must umount "$mnt"
# One in the middle of the largest tree, which is the folder's: a mount does not read it.
leaf=$(python3 "$here/oxfs-edit.py" "$dev" nodes | awk '$3 == 0 { leaves[$2, n[$2]++] = $1 }
	END { for (tree in n) if (n[tree] > n[most]) most = tree; print leaves[most, int(n[most] / 2)] }')
mount_fs
dust addbadblock "$leaf"
dust enable 2>/dev/null
dmesg -C
ls -lU >/tmp/listed 2>&1
is 'a leaf that cannot be read: listing fails' 1 $(($? > 0))
at_least 'the log says so' 1 "$(dmesg | grep -c "oxfs.*\b$leaf\b")"
check 'what is elsewhere can be read' eval 'sha256sum <data >/tmp/sum'
is 'and is right' "${before%% *}" "$(awk '{ print $1 }' /tmp/sum)"
check 'the volume still takes changes elsewhere' eval 'echo more >>data && sync data && truncate -s 4M data'
dust removebadblock "$leaf"
drop_caches
is 'when it can be read again, everything is there' 3002 "$(find . -type f | wc -l)"

cd / || give_up 'cd /'
must umount "$mnt"
for bad in 16 1024; do
	dust addbadblock $bad
	check "it mounts without block $bad, a super block" mount -t oxfs "$dev" "$mnt"
	check 'changes can be committed' eval "date >$mnt/date && sync -f $mnt"
	must umount "$mnt"
	dmsetup message oxdisk 0 removebadblock $bad 2>/dev/null
done
check 'clean' check_fs
must dmsetup remove oxdisk
dev=$disk
mount_fs
end
