#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A tree like that of a kernel's source: unpacked, compared, changed, compared after a remount and
# a check, deleted; its space comes back.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs
cat >/tmp/tree.py <<-'END'
	# 6000 files in 450 folders, with a kernel tree's mix of sizes, as a tar file.
	import io, random, tarfile
	choice = random.Random(7)
	noise = choice.randbytes(1 << 20)
	folders = ["tree"]
	with tarfile.open("/tmp/tree.tar", "w") as tar:
	    def add(name, **what):
	        info = tarfile.TarInfo(name)
	        for key, value in what.items():
	            if key != "content":
	                setattr(info, key, value)
	        info.mtime = choice.randrange(10**9)
	        tar.addfile(info, io.BytesIO(what.get("content", b"")))
	    add("tree", type=tarfile.DIRTYPE, mode=0o755)
	    for i in range(450):
	        name = f"{choice.choice(folders)}/{choice.choice(['drivers', 'fs', 'include', 'arch'])}{i}"
	        add(name, type=tarfile.DIRTYPE, mode=0o755)
	        folders.append(name)
	    for i in range(6000):
	        size = min(int(choice.lognormvariate(8.6, 1.3)), 300000)
	        at = choice.randrange((1 << 20) - size) if size < 1 << 20 else 0
	        name = f"{choice.choice(folders)}/file{i}.c"
	        if i % 200 == 199:
	            add(name, type=tarfile.SYMTYPE, linkname=f"file{i - 1}.c")
	        else:
	            add(name, size=size, mode=0o644, content=noise[at:at + size])
END
must python3 /tmp/tree.py
sync
free=$(df --output=avail . | tail -n 1)
check 'unpack' tar xf /tmp/tree.tar
check 'compare' tar df /tmp/tree.tar
is 'number of files' 6000 "$(find tree ! -type d | wc -l)"
remount
check 'compare after a remount' tar df /tmp/tree.tar
check 'copy with clones' cp -a --reflink=always tree second
check 'rename of folders' mv second third
find third -name '*1.c' -type f -exec sh -c 'for file; do echo changed >>"$file"; done' sh {} +
check 'the original has not changed' tar df /tmp/tree.tar
is 'the copy has' "$(find tree -name '*1.c' -type f | wc -l)" "$(grep -rla 'changed$' third | wc -l)"
cd / || give_up 'cd /'
must umount "$mnt"
check 'clean' check_fs
mount_fs
check 'compare' tar df /tmp/tree.tar
check 'delete' rm -r tree third
must sync
is 'nothing is left' 0 "$(find . -mindepth 1 | wc -l)"
at_least 'the space has come back' $((free - 512)) "$(df --output=avail . | tail -n 1)"
end
