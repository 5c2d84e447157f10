#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Read-only subvolumes: nothing in one changes, by whatever way, also by what was opened when it was
# writable; and who may do what.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs

must test "$(fileop subvol-create home)" = 1
cd home || give_up 'cd home'
do_op fill data 2 1
do_op mkdir folder
do_op append folder/file
do_op append small
ln -s data link
mkfifo fifo
must setfattr -n user.key -v value data
swapfile swap 2
cd .. || give_up 'cd ..'
do_op append outside
op 'a read-only snapshot' 2 snapshot home snap 1
is 'it is listed so' '2 /snap ro' "$(fileop subvol-list . | tail -n 1)"
content() { (cd snap && find . -printf '%p %i %m %u %T@ %C@ %A@ %n %s %b\n' | sort && sha256sum data small && getfattr -d data) | sha256sum; }
before=$(content)

op 'write' EROFS write snap/data 4K
op 'direct write' EROFS write-direct snap/data 4K
op 'append' EROFS append snap/data
op 'truncate' EROFS truncate snap/data 4K
op 'O_TRUNC' EROFS open-truncate snap/data
op 'shared mapping' EROFS map snap/data shared
op 'fallocate' EROFS fallocate snap/data allocate 0 4M
op 'clone into it' EROFS clone outside snap/data
op 'clone within it' EROFS clonerange snap/data snap/small 0 4K 0
op 'create' EROFS append snap/new
op 'mkdir' EROFS mkdir snap/new
op 'link' EROFS link snap/data snap/new
op 'unlink' EROFS unlink snap/data
op 'rmdir' EROFS rmdir snap/folder
op 'rename' EROFS rename snap/data snap/new
op 'rename over' EROFS rename snap/data snap/small
op 'subvolume' EROFS subvol-create snap/new
op 'snapshot' EROFS snapshot home snap/new
op 'FS_IOC_SETFLAGS' EROFS setflags snap/data 0x40
op 'FS_IOC_SETFLAGS of a folder' EROFS setflags snap/folder 0x40
op 'swapon' EROFS swapon snap/swap
for command in 'chmod 600 snap/data' 'chown 1:1 snap/data' 'touch snap/data' 'touch -h snap/link' \
	'chmod 700 snap' 'setfattr -n user.key -v other snap/data' 'setfattr -x user.key snap/data' \
	'setfattr -n trusted.key -v other snap/data' 'ln -s x snap/new' 'mkfifo snap/new' \
	'chmod 600 snap/fifo' 'xfs_io -T -c quit snap'; do
	is "$command" 'Read-only file system' "$($command 2>&1 | grep -o 'Read-only file system')"
done
op 'reading works' OK read snap/data 4K
op 'direct reading works' OK read-direct snap/data 4K
check 'clone out of it' cp --reflink=always snap/data copy
is 'the clone is right' "$(sha256sum <home/data)" "$(sha256sum <copy)"
remount
is 'nothing has changed' "$before" "$(content)"
op 'it can be renamed' OK rename snap moved
op 'and back' OK rename moved snap
op 'snapshot of it' 3 snapshot snap second
is 'which is writable' OK "$(fileop write second/data 4K)"
is 'nothing has changed' "$before" "$(content)"

op 'it becomes writable' OK subvol-ro snap 0
op 'write' OK write snap/data 4K
op 'write' OK append snap/new
op 'and read-only again' OK subvol-ro snap 1
op 'write' EROFS write snap/data 4K
op 'not of a folder' EINVAL subvol-ro home/folder 1

cat >/tmp/open.py <<-'END'
	# Opened while it is writable: each kind of change, afterwards.
	import errno, fcntl, mmap, os, signal, sys
	sys.path.insert(0, sys.argv[1])
	import oxfsctl
	fd = os.open("home/data", os.O_RDWR)
	direct = os.open("home/data", os.O_RDWR | os.O_DIRECT)
	append = os.open("home/small", os.O_WRONLY | os.O_APPEND)
	nameless = os.open("home", os.O_RDWR | os.O_TMPFILE)
	os.write(nameless, b"x" * 10000)
	memory = mmap.mmap(fd, 1 << 20)
	page = mmap.mmap(-1, 4096)
	memory[4096] = 7
	os.pwrite(fd, b"last", 100)
	oxfsctl.set_read_only("home", 1)
	def outcome(call, *arguments):
	    try:
	        call(*arguments)
	        return "OK"
	    except OSError as error:
	        return errno.errorcode[error.errno]
	def store(at):
	    child = os.fork()
	    if child == 0:
	        memory[at] = 9
	        os._exit(0)
	    status = os.waitpid(child, 0)[1]
	    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "OK"
	print(outcome(os.pwrite, fd, b"more", 0), outcome(os.pwrite, direct, page, 8192),
	      outcome(os.write, append, b"more"), outcome(os.ftruncate, fd, 5), outcome(os.ftruncate, fd, 1 << 24),
	      outcome(os.posix_fallocate, fd, 1 << 22, 4096), outcome(os.fchmod, fd, 0o600),
	      outcome(os.setxattr, fd, "user.key", b"v"), outcome(os.utime, fd),
	      outcome(fcntl.ioctl, fd, 0x40049409, os.open("outside", os.O_RDONLY)),
	      outcome(os.write, nameless, b"more"), store(4096), store(8192))
	print(outcome(os.fsync, fd), os.pread(fd, 4, 100).decode(), memory[4096])
END
is 'what was opened before cannot change it, and what was dirty is there' \
	"$(printf 'EROFS %.0s' {1..11})SIGBUS SIGBUS"$'\n''OK last 7' "$(python3 /tmp/open.py "$here" 7>&- 8<&- 2>&1)"
sum=$(sha256sum home/data home/small)
remount
is 'nothing has changed after a remount' "$sum" "$(sha256sum home/data home/small)"
op 'writable again' OK subvol-ro home 0

cat >/tmp/busy.py <<-'END'
	# Becomes read-only and writable while others write: what is read then does not change.
	import hashlib, os, random, sys, time
	sys.path.insert(0, sys.argv[1])
	import oxfsctl
	stop = "/tmp/busy.stop"
	fd = os.open("home/data", os.O_RDWR)
	def writer(seed):
	    choice = random.Random(seed)
	    while not os.path.exists(stop):
	        try:
	            os.pwrite(fd, bytes([choice.randrange(256)]) * 4096, choice.randrange(512) * 4096)
	            name = f"home/folder/n{choice.randrange(20)}"
	            os.unlink(name) if os.path.exists(name) else os.close(os.open(name, os.O_CREAT))
	        except OSError as error:
	            assert error.errno in (30, 2), error
	def state():
	    with open("home/data", "rb") as data:
	        return hashlib.sha256(data.read()).hexdigest(), sorted(os.listdir("home/folder"))
	children = [os.fork() or (writer(seed), os._exit(0)) for seed in range(3)]
	changes, last = 0, None
	for turn in range(12):
	    oxfsctl.set_read_only("home", 1)
	    seen = state()
	    time.sleep(0.1)
	    assert state() == seen, turn
	    changes += seen != last
	    last = seen
	    oxfsctl.set_read_only("home", 0)
	    time.sleep(0.1)
	open(stop, "w").close()
	failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
	print(failed, changes > 6)
END
is 'while others write' '0 True' "$(timeout 300 python3 /tmp/busy.py "$here" 7>&- 8<&- 2>&1)"

turn_on home/swap
op 'not with an active swapfile' EBUSY subvol-ro home 1
has 'the log names it' 'home/swap' "$(dmesg | grep 'read-only' | tail -n 1)"
must swapoff home/swap
op 'then' OK subvol-ro home 1
op 'writable again' OK subvol-ro home 0

as_user() {
	cat >/tmp/user.py
	chmod 755 /mnt /mnt/test
	setpriv --reuid 1000 --regid 1000 --clear-groups python3 /tmp/user.py "$here" 7>&- 8<&- 2>&1
}
cp -r "$here/oxfsctl.py" /tmp/
chmod 644 /tmp/oxfsctl.py
mkdir user
chown 1000:1000 user
is 'what a user may do' 'EACCES OK 1000 EPERM EPERM EPERM EPERM EPERM EPERM EPERM OK OK' "$(as_user <<-'END'
	import errno, os, sys
	sys.path.insert(0, "/tmp")
	import oxfsctl
	def outcome(call, *arguments):
	    try:
	        call(*arguments)
	        return "OK"
	    except OSError as error:
	        return errno.errorcode[error.errno]
	print(outcome(oxfsctl.create, "/mnt/test/mine"), outcome(oxfsctl.create, "/mnt/test/user/mine"),
	      os.stat("/mnt/test/user/mine").st_uid, outcome(oxfsctl.create, "/mnt/test/user/snap", "/mnt/test/home"),
	      outcome(oxfsctl.create, "/mnt/test/user/snap", "/mnt/test/user/mine"),
	      outcome(oxfsctl.set_read_only, "/mnt/test/user/mine", 1),
	      outcome(oxfsctl.set_read_only, "/mnt/test/home", 1), outcome(oxfsctl.delete, "/mnt/test/user/mine"),
	      outcome(oxfsctl.infos, "/mnt/test"), outcome(oxfsctl.set_default, "/mnt/test", 1),
	      outcome(oxfsctl.info, "/mnt/test/user/mine"), outcome(os.rmdir, "/mnt/test/user/mine"))
	END
)"
end
