// SPDX-License-Identifier: GPL-2.0

//! What the engine costs, and how that grows: `make bench-engine`. Times are of this machine and of a
//! disk in memory; the blocks that are written are the same everywhere.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{at, mount, new_inode, root, SimVolume};
use oxfs::engine::data::Written;
use oxfs::engine::mkfs::{format, MkfsOptions};
use oxfs::engine::node::Key;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::types::{FileBlock, InodeId, SubvolId};
use oxfs::engine::{Cost, TreeId};
use oxfs::sim::SimDisk;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const TREE: TreeId = TreeId::Subvol(SubvolId(0));
const GIB: u64 = 1 << 18;

fn made(blocks: u64) -> SimDisk {
    let disk = SimDisk::new(blocks);
    let options = MkfsOptions {
        uuid: [1; 16],
        label: b"",
        hash_seed: [2; 16],
        uid: 0,
        gid: 0,
        time: at(1),
    };
    format(disk.clone(), &options).expect("mkfs");
    disk
}

fn show(what: &str, size: u64, count: u64, time: Duration, blocks: u64) {
    let each = time.as_nanos() as f64 / count.max(1) as f64 / 1000.0;
    println!("{what:24} {size:>12} {each:>12.2} us {blocks:>10}");
}

/// Keys in an order that is spread over the tree.
fn key(i: u64) -> Key {
    Key::new(
        (1 << 30) | (i.wrapping_mul(0x9e37_79b9) & 0xff_ffff),
        200,
        i,
    )
}

/// Runs `work`, and says how long it took and what was written meanwhile.
fn measure(disk: &SimDisk, work: impl FnOnce()) -> (Duration, u64) {
    let (before, start) = (disk.writes(), Instant::now());
    work();
    (start.elapsed(), disk.writes() - before)
}

fn put(volume: &SimVolume, items: impl Iterator<Item = u64>) {
    for (n, i) in items.enumerate() {
        let put = volume.update(Cost::SMALL, |txn| txn.put(TREE, &key(i), &[7; 32]));
        put.expect("put");
        if n % 20_000 == 19_999 {
            volume.commit().expect("commit");
        }
    }
}

fn trees() {
    for items in [1_000u64, 10_000, 100_000, 1_000_000] {
        let disk = made(4 * GIB);
        let volume = mount(&disk);
        put(&volume, 0..items);
        volume.commit().expect("commit");
        let (time, _) = measure(&disk, || put(&volume, items..items + 1000));
        show("tree insert", items, 1000, time, 0);
        let (time, blocks) = measure(&disk, || volume.commit().expect("commit"));
        show("commit of 1000 inserts", items, 1, time, blocks);
        let (time, _) = measure(&disk, || {
            for i in 0..10_000 {
                let found =
                    volume.query(|view| view.get(TREE, &key(i % items), |data| Ok(data.len())));
                assert_eq!(found, Ok(Some(32)));
            }
        });
        show("tree lookup", items, 10_000, time, 0);
        let mut seen = 0;
        let (time, _) = measure(&disk, || {
            let walked = volume.query(|view| {
                view.scan(TREE, &Key::MIN, &Key::MAX, |_, _| {
                    seen += 1;
                    Ok(ControlFlow::Continue(()))
                })
            });
            walked.expect("scan");
        });
        show("tree walk, an item", items, seen, time, 0);
    }
}

fn file(volume: &SimVolume, name: &str) -> InodeId {
    let new = new_inode(0o100600, at(2));
    let made = volume.create(root(volume), name.as_bytes(), &new);
    made.expect("create").value.id
}

fn map(volume: &SimVolume, id: InodeId, start: u64, len: u64) {
    volume.reserve(len).expect("reserve");
    let run = volume.stage(id, FileBlock(start), len).expect("stage");
    volume.unreserve(len - run.len);
    let staged = Written::Staged(run.start);
    let done = volume.finish_write(id, FileBlock(start), run.len, staged, None);
    done.expect("finish_write");
}

/// A file of `extents` pieces, made private after it was cloned; then a snapshot.
fn sharing() {
    for extents in [10u64, 100, 1_000, 10_000, 100_000] {
        let disk = made(4 * GIB);
        let volume = mount(&disk);
        let (source, target) = (file(&volume, "source"), file(&volume, "target"));
        (0..extents).for_each(|i| map(&volume, source, i * 2, 1));
        let (mut done, len) = (0, extents * 2);
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
        volume.commit().expect("commit");
        let (time, blocks) = measure(&disk, || {
            (0..extents).for_each(|i| map(&volume, target, i * 2, 1));
            volume.commit().expect("commit");
        });
        show("unshare, an extent", extents, extents, time, blocks);
        let (time, blocks) = measure(&disk, || {
            common::snapshot(&volume, b"snapshot");
            volume.commit().expect("commit");
        });
        show("snapshot", extents, 1, time, blocks);
    }
}

/// One block at a time where every second one is in use.
fn fragmented() {
    for blocks in [10_000u64, 100_000] {
        let disk = made(4 * GIB);
        let volume = mount(&disk);
        let id = file(&volume, "file");
        (0..blocks)
            .step_by(64)
            .for_each(|i| map(&volume, id, i, 64));
        for i in (0..blocks).step_by(2) {
            volume.punch(id, FileBlock(i), 1).expect("punch");
        }
        volume.commit().expect("commit");
        let other = file(&volume, "other");
        let (time, _) = measure(&disk, || {
            (0..2000).for_each(|i| map(&volume, other, i * 2, 1))
        });
        show("allocate, fragmented", blocks, 2000, time, 0);
    }
}

fn sizes() {
    for gib in [1u64, 16, 128, 1024, 16 * 1024] {
        let start = Instant::now();
        let disk = made(gib * GIB);
        show("mkfs, GiB", gib, 1, start.elapsed(), disk.writes());
        let start = Instant::now();
        let volume = mount(&disk);
        show("mount, GiB", gib, 1, start.elapsed(), 0);
        file(&volume, "file");
        let (time, blocks) = measure(&disk, || volume.commit().expect("commit"));
        show("commit of a name, GiB", gib, 1, time, blocks);
    }
}

fn main() {
    println!("{:24} {:>12} {:>15} {:>10}", "what", "of", "each", "blocks");
    trees();
    sharing();
    fragmented();
    sizes();
}
