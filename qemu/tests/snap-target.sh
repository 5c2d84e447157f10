#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A file that the kernel's own NVMe target writes to, which does not ask whether the filesystem is frozen:
# what it has under way is not seen in snapshots that are taken meanwhile, nothing that it was told to be
# written is lost, also when the file is moved, and a freeze can be ended. The disk takes its time.
# vm: --disk 256M

. "${0%/*}/lib.sh"

must modprobe -a nvmet nvme-loop
sectors=$((256 << 11))
must dmsetup create slow --noudevsync --table "0 $sectors delay $dev 0 0 $dev 0 15"
must dmsetup mknodes
dev=/dev/mapper/slow
new_fs
must test "$(fileop subvol-create home)" = 1
# What is at the end of the volume has to move when that becomes smaller. Half of the file was never
# written.
do_op fill filler 160 2
do_op fill home/disk 16 1
must fallocate -l 32M home/disk
must sync
rm filler
must sync
# The end to come, and that of the file, in blocks.
end=$((60 << 8))
file_end() { fileop fiemap home/disk | awk '{ if ($2 + $3 > most) most = $2 + $3 } END { print most }'; }
at_least 'the file is behind the end to come' "$end" "$(file_end)"

must mount -t configfs configfs /sys/kernel/config
target=/sys/kernel/config/nvmet
must mkdir $target/subsystems/oxfs $target/subsystems/oxfs/namespaces/1 $target/ports/1
echo 1 >$target/subsystems/oxfs/attr_allow_any_host
echo -n "$mnt/home/disk" >$target/subsystems/oxfs/namespaces/1/device_path
echo 1 >$target/subsystems/oxfs/namespaces/1/enable
echo loop >$target/ports/1/addr_trtype
must ln -s $target/subsystems/oxfs $target/ports/1/subsystems/oxfs
before=$(ls /dev/nvme*n1)
echo transport=loop,nqn=oxfs >/dev/nvme-fabrics
for ((i = 0; i < 600; i++)); do
	disk=$(comm -13 <(echo "$before") <(ls /dev/nvme*n1))
	[[ ! $disk ]] || break
	sleep 0.1
done
check 'the file is a disk' test -b "$disk"

# written: blocks of numbers are written there, several at a time, until there is /tmp/enough; then each
# must have the last number that was written to it.
cat >/tmp/writer.py <<-'END'
	import concurrent.futures, mmap, os, random, sys
	disk = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
	WORKERS, BLOCKS = 8, 8192
	def work(number):
	    chance, page, last = random.Random(number), mmap.mmap(-1, 4096), {}
	    count = 0
	    while count < 30 or not os.path.exists("/tmp/enough"):
	        block, count = chance.randrange(BLOCKS // WORKERS) * WORKERS + number, count + 1
	        page.seek(0)
	        page.write(count.to_bytes(8, "little") * 512)
	        assert os.pwritev(disk, [page], block * 4096) == 4096
	        last[block] = count
	        if number == 0:
	            progress.write(".")
	            progress.flush()
	    wrong = 0
	    for block, count in last.items():
	        os.preadv(disk, [page], block * 4096)
	        wrong += page[:] != count.to_bytes(8, "little") * 512
	    return len(last), wrong
	progress = open("/tmp/progress", "w")
	with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
	    results = list(pool.map(work, range(WORKERS)))
	print(sum(r[0] for r in results) > 100, sum(r[1] for r in results))
END
written() {
	rm -f /tmp/enough /tmp/progress
	python3 /tmp/writer.py "$disk" >/tmp/written 2>&1 7>&- 8<&- &
	writer=$!
}
# going_on: waits until a write has begun and ended.
going_on() {
	local i from
	from=$(progress)
	for ((i = 0; i < 1200; i++)); do
		(($(progress) < from + 2)) || return 0
		sleep 0.1
	done
	give_up "no write has ended: $(</tmp/written)"
}
progress() { stat -c %s /tmp/progress 2>/dev/null || echo 0; }
# enough: the writer ends; /tmp/written says whether it has written much, and how much of it is wrong.
enough() {
	touch /tmp/enough
	wait "$writer"
}
# on_disk FILE: what the device has of it.
on_disk() { dd if="$1" iflag=direct bs=1M status=none | sha256sum; }

written
declare -A sums
failed=0 snapshots=8
for ((i = 0; i < snapshots; i++)); do
	going_on
	[[ $(fileop snapshot home "s$i" 1) =~ ^[0-9]+$ ]] || ((++failed))
	sums[$i]=$(on_disk "s$i/disk")
done
is 'snapshots while the target writes' 0 "$failed"
enough
is 'it went on writing, and reads what it wrote' 'True 0' "$(</tmp/written)"
changed=0
for i in "${!sums[@]}"; do [[ ${sums[$i]} == "$(on_disk "s$i/disk")" ]] || ((++changed)); done
is 'no snapshot has changed' 0 "$changed"
is 'they differ' "$snapshots" "$(printf '%s\n' "${sums[@]}" | sort -u | wc -l)"

# The file is moved while it is written: what is beyond the new end is in the way.
for ((i = 0; i < snapshots; i++)); do do_op subvol-delete "s$i"; done
check 'their space comes back' dropped
written
for ((i = 0; i < 3; i++)); do
	check 'smaller' timeout 300 oxfs filesystem resize 60M "$mnt"
	((i)) || at_most 'the file has been moved' "$end" "$(file_end)"
	check 'and larger' timeout 300 oxfs filesystem resize max "$mnt"
done
enough
is 'it reads what it wrote' 'True 0' "$(</tmp/written)"

# Frozen by somebody else, who is not asked: what it makes dirty meanwhile is in nobody's way.
written
going_on
check 'freeze while the target writes' fsfreeze -f "$mnt"
sleep 1
(exec 7>&- 8<&-; exec sync -f .) &
flusher=$!
sleep 2
fsfreeze -u "$mnt" &
check 'thaw' ends $!
check 'who had everything written has an answer' ends "$flusher"
enough
is 'it went on' 'True 0' "$(</tmp/written)"

echo 1 >"/sys/class/nvme/$(basename "${disk%n1}")/delete_controller"
rm $target/ports/1/subsystems/oxfs
echo 0 >$target/subsystems/oxfs/namespaces/1/enable
rmdir $target/ports/1 $target/subsystems/oxfs/namespaces/1 $target/subsystems/oxfs
check 'unmount' eval "cd / && umount $mnt"
check 'clean' fsck.oxfs "$dev"
must dmsetup remove slow
ktap_end
