#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Devices that fail: writes of data, writes of metadata, everything, and a device that is pulled out
# with a swapfile on it. Errors reach those who asked, once; what was committed before is there
# afterwards; nothing hangs.
# vm: --kernel debug --disk 256M --disk 256M
# debug: short

. "${BASH_SOURCE[0]%/*}/lib.sh"

sectors=$((256 << 11))
disk=$dev
dev=/dev/mapper/oxdisk

# table TARGET...: what the device does from now on; the filesystem is not asked first.
table() {
	must dmsetup suspend --noflush --nolockfs oxdisk
	must dmsetup load oxdisk --table "0 $sectors $*"
	must dmsetup resume oxdisk
}
works() { table linear "$disk" 0; }
fails_writes() { table flakey "$disk" 0 0 60 1 error_writes; }
fails() { table error; }

# said TEXT: how many lines of the log since the last `dmesg -C` have it.
said() { dmesg | grep -c "oxfs.*$1"; }

must dmsetup create oxdisk --noudevsync --table "0 $sectors linear $disk 0"
must dmsetup mknodes
make_fs
must mount -t "$FS" -o commit=3600 "$dev" "$mnt"
cd "$mnt" || give_up "cd $mnt"
do_op fill before 4 1
must sync
before=$(sha256sum <before)

# Data, overwritten in place: no metadata is written before fsync has seen the error.
must dd if=/dev/urandom of=data bs=64k count=4 conv=fsync status=none
dmesg -C
must dd if=/dev/urandom of=data bs=64k count=4 conv=notrunc status=none
fails_writes
python3 - <<-'END' >/tmp/fsyncs 2>&1
	import errno, os
	file = os.open("data", os.O_RDWR)
	for i in range(2):
	    try:
	        os.fsync(file)
	        print("OK", end=" ")
	    except OSError as error:
	        print(errno.errorcode[error.errno], end=" ")
	    if i == 0:
	        os.system("dmsetup suspend --noflush --nolockfs oxdisk; dmsetup load oxdisk --table "
	                  "'0 524288 linear /dev/vda 0'; dmsetup resume oxdisk")
END
is 'a failed write of data reaches fsync once' 'EIO OK ' "$(</tmp/fsyncs)"
is 'the volume does not suffer from it' 0 "$(said 'no more changes')"
op 'and takes changes' OK append before
must sync
must truncate -s -4096 before
must sync

# A commit that cannot be written.
dmesg -C
must mkdir half
fails_writes
check 'sync reports that the commit failed' eval '! sync -f .'
is 'the log says so in one line' 1 "$(said 'a commit failed.*, no more changes')"
is 'and what it was' 1 "$(said 'input/output error')"
op 'no more changes' EROFS write before 0
check 'no directories either' eval '! mkdir other'
check 'a second sync does not pretend' eval '! sync before'
drop_caches 2>/dev/null
is 'what is there can be read' "$before" "$(sha256sum <before)"
works
cd / || give_up 'cd /'
check 'it can be unmounted' umount "$mnt"
check 'what is on the disk is whole' check_fs
must mount -t "$FS" "$dev" "$mnt"
cd "$mnt" || give_up "cd $mnt"
is 'what was committed is there' "$before" "$(sha256sum <before)"
check 'what was not is not' test ! -e half
check 'it takes changes again' mkdir half

# Everything fails, with a swapfile in use.
swapfile swap 32
must sync
must swapon swap
swap_and_hold 24
must dd if=/dev/urandom of=late bs=64k count=16 status=none
dmesg -C
fails
drop_caches 2>/dev/null
check 'sync reports it' eval '! sync -f .'
check 'reading what is not in memory fails' eval '! cat before >/dev/null'
rm -f /tmp/hold
for ((i = 0; i < 300; i++)); do
	kill -0 "$held" 2>/dev/null || break
	sleep 0.1
done
check 'who needs its swapped memory ends' eval '! kill -0 "$held" 2>/dev/null'
check 'swapoff comes to an end' timeout 60 sh -c 'swapoff swap; true'
is 'and the swapfile is given up' 0 "$(swapping "$mnt/swap")"
cd / || give_up 'cd /'
check 'it can be unmounted without its device' timeout 60 umount "$mnt"
works
check 'the disk is whole' check_fs
must mount -t "$FS" "$dev" "$mnt"
is 'what was committed is there again' "$before" "$(sha256sum <"$mnt/before")"
must umount "$mnt"
must dmsetup remove oxdisk

# Pulled out.
dev=/dev/vdb
new_fs
do_op fill file 4 1
swapfile swap 32
must sync
must swapon swap
swap_and_hold 24
do_op fill late 2 2
dmesg -C
pci=$(readlink -f /sys/block/vdb/device/..)
check 'the device can be pulled out' timeout 60 sh -c "echo 1 >$pci/remove"
is 'the log says so in one line' 1 "$(said 'the device is gone, no more changes')"
check 'sync reports it' eval '! sync -f .'
op 'no more changes' EROFS write file 0
rm -f /tmp/hold
for ((i = 0; i < 300; i++)); do
	kill -0 "$held" 2>/dev/null || break
	sleep 0.1
done
check 'who needs its swapped memory ends' eval '! kill -0 "$held" 2>/dev/null'
check 'swapoff comes to an end' timeout 60 sh -c 'swapoff swap; swapoff -a; true'
cd / || give_up 'cd /'
check 'it can be unmounted' timeout 60 umount "$mnt"
check 'the module can be unloaded' rmmod oxfs
check 'and loaded' insmod /lib/modules/oxfs.ko
ktap_end
