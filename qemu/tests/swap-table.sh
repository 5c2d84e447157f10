#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What others may do to an active swapfile, and what they are answered: never anything that moves
# or frees its blocks, and never a refusal of what does no harm.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs

swapfile swap 16 1
do_op fill other 4 2
cp --reflink=never swap same
do_op fill big 24 3
mkdir folder
must sync
content=$(sums other)

# The mapping is older than the activation; the stores come after it.
op 'stores through an older shared mapping: SIGBUS, in touched pages and others' \
	'SIGBUS SIGBUS' old-map swap swapon swap
is 'the swapfile is active' 1 "$(swapping "$mnt/swap")"
before=$(fileop fiemap swap)

op 'FICLONE from it' ETXTBSY clone swap clone
op 'FICLONE to it' ETXTBSY clone big swap
op 'FICLONERANGE from it' ETXTBSY clonerange swap other 4K 8K 4K
op 'FICLONERANGE to it' ETXTBSY clonerange other swap 4K 8K 4K
op 'FICLONERANGE within it' ETXTBSY clonerange swap swap 1M 64K 2M
op 'FIDEDUPERANGE from it' 'OK ETXTBSY' dedupe swap same 64K
op 'FIDEDUPERANGE to it' 'OK ETXTBSY' dedupe same swap 64K
op 'copy_file_range from it' ETXTBSY copy swap other 64K
op 'copy_file_range to it' ETXTBSY copy other swap 64K
for mode in allocate keep punch zero unshare collapse insert write-zeroes; do
	op "fallocate $mode" ETXTBSY fallocate swap "$mode" 1M 64K
done
op 'fallocate behind the end' ETXTBSY fallocate swap allocate 16M 1M

op 'truncate to less' ETXTBSY truncate swap 8M
op 'truncate to the same size' ETXTBSY truncate swap 16M
op 'truncate to more' ETXTBSY truncate swap 17M
op 'ftruncate to less' ETXTBSY ftruncate swap 8M
op 'ftruncate to more' ETXTBSY ftruncate swap 17M
op 'ftruncate to more by less than a page' ETXTBSY ftruncate swap $(((16 << 20) + 1))
op 'O_TRUNC' ETXTBSY open-truncate swap
is 'its size is what it was' $((16 << 20)) "$(stat -c %s swap)"

op 'write' ETXTBSY write swap 1M
op 'write to the header page' ETXTBSY write swap 0
op 'write behind the end' ETXTBSY write swap 16M
op 'append' ETXTBSY append swap
op 'direct write' ETXTBSY write-direct swap 1M
op 'splice into it' ETXTBSY splice swap
op 'new shared writable mapping' ETXTBSY map swap shared
op 'private mapping works' OK map swap private

op 'unlink' EPERM unlink swap
op 'rename of it' EPERM rename swap moved
op 'rename over it' EPERM rename other swap
op 'exchange with it' EPERM exchange other swap
op 'exchange of it' EPERM exchange swap other
op 'rename of it to another folder' EPERM rename swap folder/swap

compressed=0x4 no_cow=0x800000
op 'FS_IOC_SETFLAGS: compression' ETXTBSY setflags swap $compressed
op 'FS_IOC_SETFLAGS: no copy-on-write' ETXTBSY setflags swap $no_cow
extent_size=0x800 cow_extent_size=0x10000
op 'FS_IOC_FSSETXATTR: extent size' ETXTBSY setxflags swap $extent_size 65536
op 'FS_IOC_FSSETXATTR: extent size for copy-on-write' ETXTBSY setxflags swap $cow_extent_size 65536
op 'file_setattr: extent size' ETXTBSY file-setattr swap $extent_size 65536

op 'second swapon' EBUSY swapon swap
op 'second swapon by another name' OK link swap second
op 'second swapon by that' EBUSY swapon second
cd / || give_up 'cd /'
check 'umount is refused' eval '! umount "$mnt" 2>/tmp/umount && grep -q busy /tmp/umount'
check 'remount read-only is refused' eval '! mount -o remount,ro "$mnt" 2>/tmp/remount && grep -q busy /tmp/remount'
cd "$mnt" || give_up "cd $mnt"

check 'FITRIM works' fstrim "$mnt"
check 'freeze works' fsfreeze --freeze "$mnt"
check 'thaw works' fsfreeze --unfreeze "$mnt"
op 'unlink of another name of it' EPERM unlink second
check 'chmod works' chmod 640 swap
check 'chown works' chown 1:1 swap
check 'utimes work' touch -d 2001-02-03 swap
is 'stat shows them' '640 1:1 2001-02-03' "$(stat -c '%a %u:%g %.10y' swap)"
check 'setxattr works' setfattr -n user.use -v swap swap
is 'getxattr works' swap "$(getfattr --only-values -n user.use swap)"
is 'it has all its blocks' yes "$( (($(stat -c %b swap) >= 32768)) && echo yes)"
op 'read works' OK read swap 1M
op 'direct read works' OK read-direct swap 1M
op 'SEEK_DATA works' 0 seek swap data 0
# What is in use reads as zeros, so every place after the header may be called a hole.
hole=$(fileop seek swap hole 0)
at_least 'SEEK_HOLE works, and the header is no hole' 4096 "$hole"
at_most 'SEEK_HOLE stays inside the file' $((16 << 20)) "$hole"
is 'FIEMAP works, and nothing has moved' "$before" "$(fileop fiemap swap)"
is 'the header can be read' SWAPSPACE2 "$(dd if=swap bs=1 skip=4086 count=10 status=none)"
is 'what was next to all this is unchanged' "$content" "$(sums other)"

wrong=$(swapmem -o -r 2 8)
is 'pages swapped through it are right' 0 "$wrong"

check 'swapoff' swapoff swap
op 'afterwards it is an ordinary file: clone' OK clone swap clone
op 'write' OK write swap 1M
op 'truncate to more' OK truncate swap 17M
op 'unlink' OK unlink second
op 'rename' OK rename swap moved
end
