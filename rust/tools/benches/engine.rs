// SPDX-License-Identifier: GPL-2.0

//! What the engine costs, and how that grows: `make bench-engine`. Times are of this machine and of a
//! disk in memory; the blocks that are read and written are the same everywhere.

#[path = "../tests/common/mod.rs"]
mod common;
mod table;

use common::{at, formatted, mount, new_inode, root, SimVolume};
use oxfs::engine::data::Written;
use oxfs::engine::node::Key;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::types::{FileBlock, InodeId, SubvolId};
use oxfs::engine::{Cost, TreeId};
use oxfs::sim::SimDisk;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use table::{head, line, micros, millis};

const TREE: TreeId = TreeId::Subvol(SubvolId(0));
const GIB: u64 = 1 << 18;
/// Changes between two commits of what is only prepared.
const BATCH: u64 = 20_000;

/// What was done, and what it cost.
struct Done {
    time: Duration,
    reads: u64,
    writes: u64,
}

/// Runs `work`, and says how long it took and what was read and written meanwhile.
fn measure(disk: &SimDisk, work: impl FnOnce()) -> Done {
    let (reads, writes, start) = (disk.reads(), disk.writes(), Instant::now());
    work();
    Done {
        time: start.elapsed(),
        reads: disk.reads() - reads,
        writes: disk.writes() - writes,
    }
}

fn commit(volume: &SimVolume) {
    volume.commit().expect("commit");
}

/// Item `i`: ascending. Files have none of this kind.
fn key(i: u64) -> Key {
    Key::new(1 << 30, 200, i)
}

fn put(volume: &SimVolume, i: u64, value: u8) {
    let put = volume.update(Cost::SMALL, |txn| txn.put(TREE, &key(i), &[value; 32]));
    put.expect("put");
}

/// A tree with every second item of twice as many.
fn grown(items: u64) -> (SimDisk, SimVolume) {
    let disk = formatted(8 * GIB);
    let volume = mount(&disk);
    for i in 0..items {
        put(&volume, i * 2, 7);
        if i % BATCH == BATCH - 1 {
            commit(&volume);
        }
    }
    commit(&volume);
    (disk, volume)
}

/// A number less than `items` that is far from the one of `i - 1`.
fn spread(i: u64, items: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % items
}

/// Nodes on the way to an item.
fn height(volume: &SimVolume) -> String {
    let level = volume.query(|view| Ok(view.state.root(TREE)?.level));
    (level.expect("root") + 1).to_string()
}

fn trees() {
    head(
        "tree: microseconds of an item in random order, of one of a walk, and nodes on the way",
        &["items", "insert", "lookup", "walk", "nodes"],
    );
    for items in [1_000u64, 10_000, 100_000, 1_000_000, 10_000_000] {
        let (disk, volume) = grown(items);
        let nodes = height(&volume);
        let lookup = measure(&disk, || {
            for i in 0..20_000 {
                let key = key(spread(i, items) * 2);
                let found = volume.query(|view| view.get(TREE, &key, |data| Ok(data.len())));
                assert_eq!(found, Ok(Some(32)));
            }
        });
        let mut seen = 0;
        let walk = measure(&disk, || {
            let walked = volume.query(|view| {
                view.scan(TREE, &key(0), &key(u64::MAX), |_, _| {
                    seen += 1;
                    Ok(ControlFlow::Continue(()))
                })
            });
            walked.expect("scan");
        });
        assert_eq!(seen, items);
        let insert = measure(&disk, || {
            (0..1000).for_each(|i| put(&volume, spread(i, items) * 2 + 1, 8));
        });
        line(&[
            items.to_string(),
            micros(insert.time, 1000),
            micros(lookup.time, 20_000),
            micros(walk.time, items),
            nodes,
        ]);
    }
}

/// Commits of a tree of a million items, of which so many leaves have a changed one.
fn commits() {
    const ITEMS: u64 = 1_000_000;
    head(
        "commit: milliseconds, blocks written, and those for each leaf that was changed",
        &["leaves", "time", "written", "for each"],
    );
    let (disk, volume) = grown(ITEMS);
    for leaves in [1u64, 10, 100, 1_000, 10_000] {
        (0..leaves).for_each(|i| put(&volume, i * (ITEMS / leaves) * 2, 9));
        let done = measure(&disk, || commit(&volume));
        line(&[
            leaves.to_string(),
            millis(done.time),
            done.writes.to_string(),
            format!("{:.2}", done.writes as f64 / leaves as f64),
        ]);
    }
}

fn file(volume: &SimVolume, name: &str) -> InodeId {
    let new = new_inode(0o100600, at(2));
    let made = volume.create(root(volume), name.as_bytes(), &new);
    made.expect("create").value.id
}

/// Writes a range as the filesystem does: a place for all of it, then the mapping.
fn map(volume: &SimVolume, id: InodeId, start: u64, len: u64) {
    let (mut at, end) = (start, start + len);
    while at < end {
        volume.reserve(end - at).expect("reserve");
        let run = volume.stage(id, FileBlock(at), end - at).expect("stage");
        volume.unreserve(end - at - run.len);
        let staged = Written::Staged(run.start);
        let done = volume.finish_write(id, FileBlock(at), run.len, staged, None);
        done.expect("finish_write");
        at += run.len;
    }
}

fn clone_all(volume: &SimVolume, source: InodeId, target: InodeId, len: u64) {
    let mut done = 0;
    while done < len {
        let clone = CloneRange {
            source,
            from: FileBlock(done),
            target,
            to: FileBlock(done),
            len: len - done,
        };
        done += volume.clone_range(&clone).expect("clone").value;
    }
}

/// A file of so many extents, made private after it was cloned.
fn unsharing() {
    head(
        "unshare: microseconds of an extent with its share of the commit, blocks written for each",
        &["extents", "time", "written"],
    );
    for extents in [10u64, 100, 1_000, 10_000, 100_000] {
        let disk = formatted(4 * GIB);
        let volume = mount(&disk);
        let (source, target) = (file(&volume, "source"), file(&volume, "target"));
        (0..extents).for_each(|i| map(&volume, source, i * 2, 1));
        clone_all(&volume, source, target, extents * 2);
        commit(&volume);
        let done = measure(&disk, || {
            (0..extents).for_each(|i| map(&volume, target, i * 2, 1));
            commit(&volume);
        });
        line(&[
            extents.to_string(),
            micros(done.time, extents),
            format!("{:.2}", done.writes as f64 / extents as f64),
        ]);
    }
}

/// A snapshot of a subvolume with so many items.
fn snapshots() {
    head(
        "snapshot: microseconds without its commit, blocks written, and those of the first change after it",
        &["items", "time", "written", "change"],
    );
    for items in [1_000u64, 10_000, 100_000, 1_000_000] {
        let (disk, volume) = grown(items);
        let taken = measure(&disk, || {
            common::snapshot(&volume, b"snapshot");
        });
        let committed = measure(&disk, || commit(&volume));
        put(&volume, items, 9);
        let changed = measure(&disk, || commit(&volume));
        line(&[
            items.to_string(),
            micros(taken.time, 1),
            committed.writes.to_string(),
            changed.writes.to_string(),
        ]);
    }
}

/// Writes the beginning of a file until the volume is full.
fn fill(volume: &SimVolume, id: InodeId) {
    let (mut at, mut want) = (0, 1 << 14);
    while want > 0 {
        match volume.reserve(want) {
            Ok(()) => {
                volume.unreserve(want);
                map(volume, id, at, want);
                at += want;
            }
            Err(_) => want /= 2,
        }
    }
}

/// Writes to a file until there is no free run of `len` blocks; where it ends.
fn use_up(volume: &SimVolume, id: InodeId, len: u64) -> u64 {
    let (mut at, mut found) = (0, len);
    while found == len {
        volume.reserve(len).expect("reserve");
        let run = volume.stage(id, FileBlock(at), len).expect("stage");
        volume.unreserve(len - run.len);
        let staged = Written::Staged(run.start);
        let done = volume.finish_write(id, FileBlock(at), run.len, staged, None);
        done.expect("finish_write");
        (at, found) = (at + run.len, run.len);
    }
    at
}

/// A volume in which so many blocks are free, no two of them side by side.
fn fragmented() {
    const TIMES: u64 = 100;
    const LONG: u64 = 64;
    head(
        "allocation where all free runs are of one block: microseconds of 1 block, and of 64",
        &["free runs", "1 block", "64 blocks"],
    );
    for runs in [10_000u64, 100_000, 1_000_000] {
        let disk = formatted(runs * 2 + 30_000);
        let volume = mount(&disk);
        let (full, other) = (file(&volume, "full"), file(&volume, "other"));
        fill(&volume, full);
        for i in 0..runs {
            volume.punch(full, FileBlock(i * 2), 1).expect("punch");
            if i % BATCH == BATCH - 1 {
                commit(&volume);
            }
        }
        commit(&volume);
        let end = use_up(&volume, other, 2);
        let allocate = |from: u64, len: u64| {
            measure(&disk, || {
                (0..TIMES).for_each(|i| map(&volume, other, from + i * len, len));
            })
        };
        let (small, large) = (allocate(end, 1), allocate(end + TIMES, LONG));
        line(&[
            runs.to_string(),
            micros(small.time, TIMES),
            micros(large.time, TIMES),
        ]);
    }
}

fn sizes() {
    head(
        "size of the volume: milliseconds and blocks of mkfs, mount and the commit of a new name",
        &[
            "GiB", "mkfs", "written", "mount", "read", "commit", "written",
        ],
    );
    for gib in [1u64, 16, 128, 1024, 16 * 1024] {
        let start = Instant::now();
        let disk = formatted(gib * GIB);
        let (made, written) = (start.elapsed(), disk.writes());
        let mut volume = None;
        let mounted = measure(&disk, || volume = Some(mount(&disk)));
        let volume = volume.expect("mounted");
        file(&volume, "file");
        let committed = measure(&disk, || commit(&volume));
        line(&[
            gib.to_string(),
            millis(made),
            written.to_string(),
            millis(mounted.time),
            mounted.reads.to_string(),
            millis(committed.time),
            committed.writes.to_string(),
        ]);
    }
}

fn main() {
    trees();
    commits();
    unsharing();
    snapshots();
    fragmented();
    sizes();
}
