#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A snapshot of a busy subvolume is of one moment: it has all that was written before some point,
# and nothing that was written after it, whichever way it was written; it does not change
# afterwards; and writers do not wait long.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs
must test "$(fileop subvol-create home)" = 1
cat >/tmp/atomic.py <<-'END'
	import mmap, os, struct, sys, time
	sys.path.insert(0, sys.argv[1])
	import oxfsctl
	FILES, PAGE, SNAPSHOTS, stop = 4, 4096, 25, "/tmp/stop"
	# A writer writes 1, 2, 3 ... in turn to several files, over what was there. A file of its own
	# tells the longest time that a write took.
	def writer(kind):
	    names = [f"home/{kind}{i}" for i in range(FILES)]
	    flags = os.O_RDWR | os.O_CREAT | (os.O_DIRECT if kind == "direct" else 0)
	    fds = [os.open(name, flags) for name in names]
	    page = mmap.mmap(-1, PAGE)
	    for fd in fds:
	        os.pwrite(fd, page, 0)
	    maps = [mmap.mmap(fd, PAGE) for fd in fds] if kind == "mapped" else []
	    count, longest = 0, 0
	    while not os.path.exists(stop):
	        count += 1
	        i, data, start = count % FILES, struct.pack("<Q", count), time.monotonic()
	        if kind == "buffered":
	            os.pwrite(fds[i], data, 0)
	        elif kind == "mapped":
	            maps[i][:8] = data
	        elif kind == "direct":
	            page[:8] = data
	            os.pwrite(fds[i], page, 0)
	        elif kind == "named":
	            os.rename(f"home/name-{count - 1}" if count > 1 else names[0], f"home/name-{count}")
	        else:
	            os.ftruncate(fds[i], count)
	        longest = max(longest, time.monotonic() - start)
	        if count == FILES:
	            open(f"/tmp/going-{kind}", "w").close()
	        if kind == "mapped":
	            time.sleep(0.0005)
	    with open(f"/tmp/longest-{kind}", "w") as out:
	        print(count, round(longest, 2), file=out)
	kinds = ["buffered", "mapped", "direct", "named", "sized"]
	children = [os.fork() or (writer(kind), os._exit(0)) for kind in kinds]
	while not all(os.path.exists(f"/tmp/going-{kind}") for kind in kinds):
	    time.sleep(0.1)
	def values(folder, kind):
	    if kind == "sized":
	        return [os.stat(f"{folder}/sized{i}").st_size for i in range(FILES)]
	    found = []
	    for i in range(FILES):
	        with open(f"{folder}/{kind}{i}", "rb") as data:
	            found.append(struct.unpack("<Q", data.read(8))[0])
	    return found
	def state(folder):
	    found = {kind: values(folder, kind) for kind in kinds if kind != "named"}
	    found["named"] = sorted(name for name in os.listdir(folder) if name.startswith("name-"))
	    return found
	states, bad = [], 0
	for turn in range(SNAPSHOTS):
	    oxfsctl.create(f"snap{turn}", "home")
	    states.append(state(f"snap{turn}"))
	    time.sleep(0.05)
	open(stop, "w").close()
	failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
	for turn, found in enumerate(states):
	    for kind in kinds:
	        if kind == "named":
	            good = len(found[kind]) == 1
	        else:
	            last = max(found[kind])
	            good = last < FILES and kind == "sized" or \
	                all(last - value < FILES and value % FILES == i for i, value in enumerate(found[kind]))
	        if not good:
	            bad += 1
	            print(turn, kind, found[kind])
	    if state(f"snap{turn}") != found:
	        bad += 1
	        print(turn, "has changed", found, state(f"snap{turn}"))
	progress = len({str(found) for found in states})
	print(failed, bad, progress)
	END
is 'each is of one moment, does not change, and differs from the one before' '0 0 25' \
	"$(timeout 500 python3 /tmp/atomic.py "$here" 7>&- 8<&- 2>&1)"
sed 's/^/# writes, longest time of one (s): /' /tmp/longest-*
state() { (cd "$mnt" && find snap* -type f -printf '%p %s\n' | sort && find snap* -type f -exec sha256sum {} + | sort -k 2) | sha256sum; }
before=$(state)
remount
is 'they have not changed after a remount' "$before" "$(state)"
for ((i = 0; i < 25; i += 2)); do do_op subvol-delete "snap$i"; done
must rm -rf home/*
left() { find "$mnt"/snap* -type f -exec sha256sum {} + | sort -k 2 | sha256sum; }
before=$(left)
remount
is 'nor has what is left when others and the source are gone' "$before" "$(left)"
end
