#!/bin/bash
. /oxfs/qemu/tests/lib.sh
disk=/dev/vda
dust() { must dmsetup message oxdisk 0 "$@"; }
must dmsetup create oxdisk --noudevsync --table "0 $((256 << 11)) dust $disk 0 4096"
must dmsetup mknodes
dev=/dev/mapper/oxdisk
new_fs
for i in $(seq 3000); do : >"some-file-with-a-long-name-$i"; done
cd /; umount $mnt
python3 "$here/oxfs-edit.py" "$dev" nodes | awk '{print $2,$3}' | sort | uniq -c
leaf=$(python3 "$here/oxfs-edit.py" "$dev" nodes | awk '$3 == 0 { n[$2]++; last[$2] = $1 }
	END { for (tree in n) if (n[tree] > most) { most = n[tree]; found = last[tree] } print found }')
echo leaf $leaf
dmsetup message oxdisk 0 addbadblock $leaf
dmsetup message oxdisk 0 enable
dmsetup status oxdisk
dd if=$dev of=/dev/null bs=4096 skip=$leaf count=1 iflag=direct
mount_fs
ls -lU | tail -1
dd if=$dev of=/dev/null bs=4096 skip=$leaf count=1 iflag=direct
dmesg | grep -i 'oxfs\|dust' | tail
oxfs inspect node $dev $leaf 2>&1 | head -5
